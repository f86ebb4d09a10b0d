import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { Command } from "cmdk";
import { Boxes, Building2, KeyRound, type LucideIcon, Play } from "lucide-react";
import { Dialog } from "radix-ui";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { useEscapable } from "@/components/ui/escape";
import { giveBack, whoOpened } from "@/components/ui/opener";
import { useSession } from "@/features/session/session";
import { answer, api } from "@/lib/api/client";
import { may, regionsOf } from "./nav";

/** ⌘K: pages by name, and what this key may see of adapters, keys and tenants. */
export function Palette({ open, onClose }: { open: boolean; onClose: () => void }) {
  const opener = useRef<readonly HTMLElement[]>([]);
  const navigate = useNavigate();
  useEscapable(open, onClose);

  return (
    <Dialog.Root open={open} onOpenChange={(next) => !next && onClose()}>
      <Dialog.Portal>
        <Dialog.Overlay className="fixed inset-0 z-40 bg-black/45" />
        <Dialog.Content
          aria-describedby={undefined}
          onOpenAutoFocus={() => {
            opener.current = whoOpened();
          }}
          onCloseAutoFocus={(event) => {
            event.preventDefault();
            giveBack(opener.current);
          }}
          className="fixed top-[12vh] left-1/2 z-50 w-[calc(100vw-2rem)] max-w-lg -translate-x-1/2 overflow-hidden rounded-xl border border-line bg-surface shadow-float"
        >
          <Dialog.Title className="sr-only">Go to or find</Dialog.Title>
          <Places
            go={(href) => {
              opener.current = [];
              onClose();
              void navigate({ href: `/admin${href}` });
            }}
          />
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Places({ go }: { go: (href: string) => void }) {
  const { me } = useSession();
  const [text, setText] = useState("");
  const found = useFound(text, me.scopes);
  const things = found.map((group) => group.heading.toLowerCase());
  return (
    <Command label="Go to or find" filter={nearness}>
      <Command.Input
        value={text}
        onValueChange={setText}
        placeholder={`A page${things.length > 0 ? ` or one of the ${things.join(", ")}` : ""}…`}
        className="h-12 w-full border-b border-line bg-transparent px-4 text-sm outline-none"
      />
      <Command.List className="max-h-80 overflow-y-auto p-1.5">
        <Command.Empty className="px-3 py-6 text-center text-sm text-ink-soft">
          Nothing is called that.
        </Command.Empty>
        <Group heading="Pages">
          {regionsOf(me.scopes)
            .flatMap((region) => region.places)
            .map(({ to, label, icon, words }) => (
              <Item
                key={to}
                id={to}
                label={label}
                icon={icon}
                words={words.split(" ")}
                onSelect={() => go(to)}
              />
            ))}
        </Group>
        {found.map(({ heading, icon, items }) =>
          items.length > 0 ? (
            <Group key={heading} heading={heading}>
              {items.map(({ id, label, href }) => (
                <Item key={id} id={id} label={label} icon={icon} onSelect={() => go(href)} />
              ))}
            </Group>
          ) : null,
        )}
      </Command.List>
    </Command>
  );
}

interface Found {
  heading: string;
  icon: LucideIcon;
  items: { id: string; label: string; href: string }[];
}

/** The API's longest page: keys have no search of their own and are searched in it. */
const PAGE = 100;

function useFound(text: string, scopes: readonly string[]): Found[] {
  const manages = may(scopes, "manage");
  const operates = may(scopes, "operator");
  const tries = !manages && may(scopes, "inference");
  const name = usePaused(text.trim().toLowerCase()) || undefined;
  const keep = { placeholderData: <T,>(old: T) => old, staleTime: 30_000 };
  const adapters = useQuery({
    queryKey: ["adapters", "palette", name],
    queryFn: () =>
      answer(
        api.GET("/api/v1/adapters", { params: { query: { name, sort: "name", order: "asc", limit: 8 } } }),
      ),
    enabled: manages,
    ...keep,
  });
  const models = useQuery({
    queryKey: ["models", "palette", name],
    queryFn: () => answer(api.GET("/v1/models", { params: { query: { name, limit: 8 } } })),
    enabled: tries,
    ...keep,
  });
  const keys = useQuery({
    queryKey: ["keys", "palette"],
    queryFn: () => answer(api.GET("/api/v1/keys", { params: { query: { limit: PAGE } } })),
    enabled: manages,
    ...keep,
  });
  const tenants = useQuery({
    queryKey: ["tenants", "palette", name],
    queryFn: () => answer(api.GET("/api/v1/tenants", { params: { query: { name, limit: 8 } } })),
    enabled: operates,
    ...keep,
  });
  const groups: (Found | null)[] = [
    operates
      ? {
          heading: "Tenants",
          icon: Building2,
          items: (tenants.data?.data ?? []).map((one) => ({
            id: one.id,
            label: one.name,
            href: `/operator/tenants?tenant=${one.id}`,
          })),
        }
      : null,
    manages
      ? {
          heading: "Adapters",
          icon: Boxes,
          items: (adapters.data?.data ?? []).map((one) => ({
            id: one.id,
            label: one.name,
            href: `/adapters/${one.name}`,
          })),
        }
      : null,
    tries
      ? {
          heading: "Models to try",
          icon: Play,
          items: (models.data?.data ?? []).map((one) => ({
            id: one.id,
            label: one.id,
            href: `/playground?models=${encodeURIComponent(JSON.stringify([one.id]))}`,
          })),
        }
      : null,
    manages
      ? {
          heading: "API keys",
          icon: KeyRound,
          items: (keys.data?.data ?? [])
            .filter((one) => one.revoked_at === null)
            .map((one) => ({ id: one.id, label: one.name, href: `/keys#${one.id}` })),
        }
      : null,
  ];
  return groups.filter((group) => group !== null);
}

/** By what people call a thing, never by its id. */
function nearness(_id: string, text: string, names: string[] = []): number {
  const wanted = text.trim().toLowerCase();
  const [label = "", ...words] = names.map((name) => name.toLowerCase());
  if (label === wanted) return 1;
  if (label.startsWith(wanted)) return 0.9;
  if (label.includes(wanted)) return 0.7;
  return words.some((word) => word.startsWith(wanted)) ? 0.4 : 0;
}

/** The server searches; ask it when the typing pauses. */
function usePaused(text: string): string {
  const [paused, setPaused] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setPaused(text), 150);
    return () => clearTimeout(timer);
  }, [text]);
  return paused;
}

function Group({ heading, children }: { heading: string; children: ReactNode }) {
  return (
    <Command.Group
      heading={heading}
      className="[&_[cmdk-group-heading]]:px-2.5 [&_[cmdk-group-heading]]:py-1.5 [&_[cmdk-group-heading]]:text-xs [&_[cmdk-group-heading]]:text-ink-soft"
    >
      {children}
    </Command.Group>
  );
}

interface ItemProps {
  /** Tells apart two things of one name. */
  id: string;
  label: string;
  icon: LucideIcon;
  words?: string[];
  onSelect: () => void;
}

function Item({ id, label, icon: Icon, words = [], onSelect }: ItemProps) {
  return (
    <Command.Item
      value={id}
      keywords={[label, ...words]}
      onSelect={onSelect}
      className="flex cursor-default items-center gap-2.5 rounded-md px-2.5 py-2 text-sm data-[selected=true]:bg-accent-wash data-[selected=true]:text-accent"
    >
      <Icon aria-hidden className="size-4 shrink-0 text-ink-soft" /> <span className="truncate">{label}</span>
    </Command.Item>
  );
}
