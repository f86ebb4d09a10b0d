import { View } from "@/components/ui/states";
import { StackedChart } from "@/features/usage/chart";
import { useSeries } from "@/features/usage/usage";

export default function AdapterUsage({ id }: { id: string }) {
  const query = useSeries({ by: "version", measure: "cost", range: "7d", adapter: id });
  return (
    <View query={query} rows={5}>
      {(series) => (
        <StackedChart series={series} measure="cost" caption="Cost by version over the last 7 days" compact />
      )}
    </View>
  );
}
