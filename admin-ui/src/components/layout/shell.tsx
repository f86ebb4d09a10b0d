import { Link, Outlet, useRouterState } from "@tanstack/react-router";
import { LogOut, Menu as MenuIcon, Monitor, Moon, Search, Sun } from "lucide-react";
import { Dialog } from "radix-ui";
import { useEffect, useRef, useState } from "react";
import { Button } from "@/components/ui/button";
import { Menu, MenuItem, MenuLabel, MenuLine } from "@/components/ui/menu";
import { Forbidden } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import { signOut, useSession } from "@/features/session/session";
import { applyTheme } from "@/lib/theme";
import mark from "../../mark.svg";
import { lockedPlace, type Place, regionsOf } from "./nav";
import { PageHeader } from "./page";
import { Palette } from "./palette";

export function Shell() {
  const { me } = useSession();
  const [navOpen, setNavOpen] = useState(false);
  const [paletteOpen, setPaletteOpen] = useState(false);
  const pathname = useRouterState({ select: (state) => state.location.pathname });
  const locked = lockedPlace(me.scopes, pathname);
  const toast = useToast();
  const main = useRef<HTMLElement>(null);
  const shown = useRef(pathname);

  useEffect(() => {
    function press(event: KeyboardEvent) {
      if (event.key.toLowerCase() === "k" && (event.metaKey || event.ctrlKey)) {
        event.preventDefault();
        setPaletteOpen((open) => !open);
      }
    }
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);

  // A new page is a new place to read from; a refresh of the same one must not move the focus.
  useEffect(() => {
    if (shown.current === pathname) return;
    shown.current = pathname;
    setNavOpen(false);
    main.current?.focus({ preventScroll: true });
  }, [pathname]);

  const leave = () =>
    void signOut().catch(() => toast("The gateway did not hear it: you are still signed in.", "bad"));

  const nav = <Navigation scopes={me.scopes} />;
  return (
    <div className="min-h-dvh lg:grid lg:grid-cols-[15rem_minmax(0,1fr)]">
      <a
        href="#main"
        className="sr-only z-50 rounded-md bg-accent px-3 py-2 text-accent-ink focus:not-sr-only focus:fixed focus:top-2 focus:left-2"
      >
        Skip to the content
      </a>
      <aside className="sticky top-0 hidden h-dvh flex-col border-r border-line bg-surface lg:flex">
        <Brand tenant={me.tenant_name} />
        {nav}
      </aside>
      <div className="flex min-w-0 flex-col">
        <header className="sticky top-0 z-30 flex h-14 items-center gap-2 border-b border-line bg-surface/95 px-3 backdrop-blur sm:px-6">
          <Dialog.Root open={navOpen} onOpenChange={setNavOpen}>
            <Dialog.Trigger asChild>
              <Button look="quiet" size="icon" aria-label="Open the navigation" className="lg:hidden">
                <MenuIcon aria-hidden />
              </Button>
            </Dialog.Trigger>
            <Dialog.Portal>
              <Dialog.Overlay className="fixed inset-0 z-40 bg-black/45" />
              <Dialog.Content
                aria-describedby={undefined}
                className="fixed inset-y-0 left-0 z-50 flex w-64 flex-col bg-surface shadow-float"
              >
                <Dialog.Title className="sr-only">Navigation</Dialog.Title>
                <Brand tenant={me.tenant_name} />
                {nav}
              </Dialog.Content>
            </Dialog.Portal>
          </Dialog.Root>
          <Button
            onClick={() => setPaletteOpen(true)}
            className="w-full max-w-72 min-w-0 shrink justify-start font-normal text-ink-soft"
          >
            <Search aria-hidden />
            <span className="truncate">Go to or find…</span>
            <kbd className="ml-auto hidden rounded border border-line px-1.5 font-sans text-xs sm:inline">
              ⌘K
            </kbd>
          </Button>
          <div className="ml-auto flex items-center gap-1">
            <Menu
              trigger={
                <Button look="quiet" size="icon" aria-label="Theme">
                  <Sun aria-hidden className="dark:hidden" />
                  <Moon aria-hidden className="hidden dark:block" />
                </Button>
              }
            >
              <MenuItem onSelect={() => applyTheme("light")}>
                <Sun aria-hidden /> Light
              </MenuItem>
              <MenuItem onSelect={() => applyTheme("dark")}>
                <Moon aria-hidden /> Dark
              </MenuItem>
              <MenuItem onSelect={() => applyTheme("system")}>
                <Monitor aria-hidden /> As the system
              </MenuItem>
            </Menu>
            <Menu
              trigger={
                <Button look="quiet" size="sm">
                  <span
                    aria-hidden
                    className="grid size-6 place-items-center rounded-full bg-accent-wash text-xs font-semibold text-accent uppercase"
                  >
                    {me.tenant_name.slice(0, 1)}
                  </span>
                  <span className="sr-only">Account of </span>
                  <span className="max-w-24 truncate sm:max-w-40">{me.tenant_name}</span>
                </Button>
              }
            >
              <MenuLabel>
                <span className="block font-medium text-ink">{me.tenant_name}</span>
                <span className="block font-mono">{me.key_prefix}</span>
                <span className="block">{me.scopes.join(", ")}</span>
              </MenuLabel>
              <MenuLine />
              <MenuItem onSelect={leave}>
                <LogOut aria-hidden /> Sign out
              </MenuItem>
            </Menu>
          </div>
        </header>
        <main
          id="main"
          ref={main}
          tabIndex={-1}
          className="mx-auto w-full max-w-7xl flex-1 p-4 outline-none sm:p-6"
        >
          {locked ? <Locked place={locked} /> : <Outlet />}
        </main>
      </div>
      <Palette open={paletteOpen} onClose={() => setPaletteOpen(false)} />
    </div>
  );
}

/** Said without asking the server, and without the page's acts standing above it. */
function Locked({ place }: { place: Place }) {
  return (
    <>
      <PageHeader title={place.label} />
      <Forbidden>
        It needs a key that may {NEEDS[place.needs]}. Sign in with such a key, or ask whoever made yours.
      </Forbidden>
    </>
  );
}

const NEEDS = {
  inference: "run inference",
  manage: "manage this tenant",
  operator: "operate the whole installation",
};

function Brand({ tenant }: { tenant: string }) {
  return (
    <div className="flex h-14 shrink-0 items-center gap-2.5 border-b border-line px-4">
      <img src={mark} alt="" className="size-7" />
      <div className="min-w-0 leading-tight">
        <div className="text-sm font-semibold">Tenantry</div>
        <div className="truncate text-xs text-ink-soft">{tenant}</div>
      </div>
    </div>
  );
}

function Navigation({ scopes }: { scopes: readonly string[] }) {
  return (
    <nav aria-label="Console" className="flex-1 overflow-y-auto p-3">
      {regionsOf(scopes).map(({ title, places }) => (
        <Places key={title} title={title} places={places} />
      ))}
    </nav>
  );
}

function Places({ title, places }: { title: string | null; places: readonly Place[] }) {
  return (
    <div className="mb-4">
      {title && <h2 className="px-2.5 pt-1 pb-1.5 text-xs font-medium text-ink-soft">{title}</h2>}
      <ul className="grid gap-0.5">
        {places.map(({ to, label, icon: Icon }) => (
          <li key={to}>
            <Link
              to={to}
              activeOptions={{ exact: false }}
              className="flex items-center gap-2.5 rounded-md px-2.5 py-1.5 text-sm text-ink-soft hover:bg-raised hover:text-ink data-[status=active]:bg-accent-wash data-[status=active]:font-medium data-[status=active]:text-accent"
            >
              <Icon aria-hidden className="size-4" />
              {label}
            </Link>
          </li>
        ))}
      </ul>
    </div>
  );
}
