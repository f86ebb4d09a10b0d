import { useNavigate } from "@tanstack/react-router";
import { View } from "@/components/ui/states";
import { StackedChart } from "@/features/usage/chart";
import { drilled } from "@/features/usage/drill";
import { useSeries } from "@/features/usage/usage";

export default function DayChart() {
  const navigate = useNavigate();
  const query = useSeries({ by: "adapter", measure: "cost", range: "24h" });
  return (
    <View query={query} rows={6}>
      {(series) => (
        <StackedChart
          series={series}
          measure="cost"
          caption="Cost by adapter over the last 24 hours"
          compact
          onPick={(at, group) =>
            void navigate({ to: "/usage", search: { range: "24h", at, ...drilled("adapter", group) } })
          }
        />
      )}
    </View>
  );
}
