import { Link, useNavigate } from "@tanstack/react-router";
import { GitCompare, Play, Trash2, Upload } from "lucide-react";
import { lazy, Suspense, useState } from "react";
import { may } from "@/components/layout/nav";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { Panel } from "@/components/ui/panel";
import { Failed, Skeleton, View } from "@/components/ui/states";
import { useSession } from "@/features/session/session";
import { useLive } from "@/hooks/use-live";
import type { RegistrySchemasAdapterView, VersionView } from "@/lib/api/schema";
import { dateTime } from "@/lib/format";
import { useAdapter, useAdapterStats, useVersions } from "./adapters";
import { Aliases } from "./aliases";
import { Compare } from "./compare";
import { MoveDialog } from "./move-dialog";
import { RemoveDialog } from "./remove-dialog";
import { UploadDialog } from "./upload-dialog";
import { Versions } from "./versions";

const AdapterUsage = lazy(() => import("./adapter-usage"));

const LINK = "text-accent underline underline-offset-2";

export function AdapterPage({ name }: { name: string }) {
  const adapter = useAdapter(name);
  useLive();
  if (adapter.data) return <Detail adapter={adapter.data} />;
  if (adapter.error)
    return (
      <>
        <PageHeader title={name} />
        <Failed error={adapter.error} onRetry={() => void adapter.refetch()} />
      </>
    );
  return <Skeleton rows={8} />;
}

function Detail({ adapter }: { adapter: RegistrySchemasAdapterView }) {
  const { me } = useSession();
  const navigate = useNavigate();
  const versions = useVersions(adapter.name);
  const { byAdapter, engines } = useAdapterStats([adapter.id]);
  const [uploading, setUploading] = useState(false);
  const [moving, setMoving] = useState<{ alias: string; version?: number } | null>(null);
  const [retiring, setRetiring] = useState<VersionView | null>(null);
  const [removing, setRemoving] = useState(false);
  const [compared, setCompared] = useState<number[]>([]);
  const aliases = adapter.aliases ?? [];
  const ready = (versions.data ?? []).filter((version) => version.state === "ready");

  return (
    <>
      <PageHeader
        title={adapter.name}
        description={
          <>
            {adapter.description && <span className="block">{adapter.description}</span>}
            On {adapter.base_model}, since {dateTime(adapter.created_at)} ·{" "}
            <Link to="/sessions" search={{ model: adapter.name }} className={LINK}>
              sessions
            </Link>{" "}
            ·{" "}
            <Link to="/usage" search={{ adapter: adapter.id, by: "version", range: "7d" }} className={LINK}>
              usage
            </Link>{" "}
            ·{" "}
            <Link to="/activity" search={{ adapter: adapter.name }} className={LINK}>
              activity
            </Link>
          </>
        }
        actions={
          <>
            {may(me.scopes, "inference") && (
              <Button
                onClick={() => void navigate({ to: "/playground", search: { models: [adapter.name] } })}
              >
                <Play aria-hidden /> Try it
              </Button>
            )}
            <Button look="solid" onClick={() => setUploading(true)}>
              <Upload aria-hidden /> New version
            </Button>
            <Button look="danger" onClick={() => setRemoving(true)}>
              <Trash2 aria-hidden /> Delete
            </Button>
          </>
        }
      />
      <div className="grid gap-4 xl:grid-cols-[minmax(0,1fr)_22rem]">
        <div className="grid min-w-0 content-start gap-4">
          <Panel
            title="Versions"
            flush
            aside={
              <span className="flex items-center gap-1.5 text-xs text-ink-soft max-md:hidden">
                <GitCompare aria-hidden className="size-4" />
                {compared.length === 2 ? "compared below" : "tick two to compare"}
              </span>
            }
          >
            <View query={versions}>
              {(rows) => (
                <Versions
                  query={versions}
                  versions={rows}
                  aliases={aliases}
                  resident={byAdapter.get(adapter.id)?.resident ?? []}
                  engines={engines}
                  compared={compared}
                  onCompare={(number, on) =>
                    setCompared((old) =>
                      on ? [...old.slice(-1), number] : old.filter((one) => one !== number),
                    )
                  }
                  onPromote={(version) => setMoving({ alias: "default", version: version.number })}
                  onRetire={setRetiring}
                />
              )}
            </View>
          </Panel>
          {compared.length === 2 && (
            <Compare
              id={adapter.id}
              name={adapter.name}
              numbers={compared}
              versions={versions.data ?? []}
              aliases={aliases}
            />
          )}
          <Panel title="Cost by version, last 7 days">
            <Suspense fallback={<Skeleton />}>
              <AdapterUsage id={adapter.id} />
            </Suspense>
          </Panel>
        </div>
        <Aliases adapter={adapter} onMove={(alias, version) => setMoving({ alias, version })} />
      </div>
      {uploading && <UploadDialog adapter={adapter.name} onClose={() => setUploading(false)} />}
      {moving && (
        <MoveDialog
          adapter={adapter}
          ready={ready}
          alias={moving.alias}
          version={moving.version}
          onClose={() => setMoving(null)}
        />
      )}
      {retiring && <RemoveDialog adapter={adapter} version={retiring} onClose={() => setRetiring(null)} />}
      {removing && (
        <RemoveDialog
          adapter={adapter}
          onClose={() => setRemoving(false)}
          onGone={() => navigate({ to: "/adapters" })}
        />
      )}
    </>
  );
}
