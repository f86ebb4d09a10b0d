import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { Command } from "cmdk";
import { Boxes } from "lucide-react";
import { useState } from "react";
import { useSession } from "@/features/session/session";
import { answer, api } from "@/lib/api/client";
import { OPERATOR_PLACES, type Place, TENANT_PLACES } from "./nav";

/** ⌘K: pages by name, and the tenant's adapters as the server finds them. */
export function Palette({ open, onClose }: { open: boolean; onClose: () => void }) {
  const { isOperator, mayManage } = useSession();
  const navigate = useNavigate();
  const [text, setText] = useState("");
  const adapters = useQuery({
    queryKey: ["adapters", "palette", text],
    queryFn: async () => {
      const query = {
        name: text.trim().toLowerCase() || undefined,
        sort: "name",
        order: "asc",
        limit: 8,
      } as const;
      return (await answer(api.GET("/api/v1/adapters", { params: { query } }))).data;
    },
    enabled: open && mayManage,
    placeholderData: (old) => old,
  });

  function go(href: string) {
    onClose();
    setText("");
    void navigate({ href: `/admin${href}` });
  }

  const places: readonly Place[] = isOperator ? [...TENANT_PLACES, ...OPERATOR_PLACES] : TENANT_PLACES;
  return (
    <Command.Dialog
      open={open}
      onOpenChange={(next) => !next && onClose()}
      label="Go to or find"
      overlayClassName="fixed inset-0 z-40 bg-black/45"
      contentClassName="fixed top-[12vh] left-1/2 z-50 w-[calc(100vw-2rem)] max-w-lg -translate-x-1/2 overflow-hidden rounded-xl border border-line bg-surface shadow-float"
    >
      <Command.Input
        value={text}
        onValueChange={setText}
        placeholder="A page or an adapter…"
        className="h-12 w-full border-b border-line bg-transparent px-4 text-sm outline-none"
      />
      <Command.List className="max-h-80 overflow-y-auto p-1.5">
        <Command.Empty className="px-3 py-6 text-center text-sm text-ink-soft">
          Nothing is called that.
        </Command.Empty>
        <Command.Group heading="Pages" className={GROUP}>
          {places.map(({ to, label, icon: Icon, words }) => (
            <Command.Item
              key={to}
              value={label}
              keywords={words.split(" ")}
              onSelect={() => go(to)}
              className={ITEM}
            >
              <Icon aria-hidden className="size-4 text-ink-soft" /> {label}
            </Command.Item>
          ))}
        </Command.Group>
        {adapters.data && adapters.data.length > 0 && (
          <Command.Group heading="Adapters" className={GROUP}>
            {adapters.data.map((adapter) => (
              <Command.Item
                key={adapter.id}
                value={adapter.name}
                onSelect={() => go(`/adapters/${adapter.name}`)}
                className={ITEM}
              >
                <Boxes aria-hidden className="size-4 text-ink-soft" /> {adapter.name}
              </Command.Item>
            ))}
          </Command.Group>
        )}
      </Command.List>
    </Command.Dialog>
  );
}

const GROUP =
  "[&_[cmdk-group-heading]]:px-2.5 [&_[cmdk-group-heading]]:py-1.5 [&_[cmdk-group-heading]]:text-xs [&_[cmdk-group-heading]]:text-ink-soft";
const ITEM =
  "flex cursor-default items-center gap-2.5 rounded-md px-2.5 py-2 text-sm data-[selected=true]:bg-accent-wash data-[selected=true]:text-accent";
