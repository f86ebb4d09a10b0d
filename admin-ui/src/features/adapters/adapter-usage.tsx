import { useNavigate } from "@tanstack/react-router";
import { View } from "@/components/ui/states";
import { StackedChart } from "@/features/usage/chart";
import { drilled } from "@/features/usage/drill";
import { useSeries } from "@/features/usage/usage";

const SHOWN = { by: "version", measure: "cost", range: "7d" } as const;

/** A bar leads to its requests, under Usage, which shows the same. */
export default function AdapterUsage({ id }: { id: string }) {
  const navigate = useNavigate();
  const query = useSeries({ ...SHOWN, adapter: id });
  return (
    <View query={query} rows={5}>
      {(series) => (
        <StackedChart
          series={series}
          measure="cost"
          caption="Cost by version over the last 7 days"
          compact
          onPick={(at, group) =>
            void navigate({
              to: "/usage",
              search: { ...SHOWN, adapter: id, at, ...drilled("version", group) },
            })
          }
        />
      )}
    </View>
  );
}
