import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { answer, api } from "@/lib/api/client";

const SHOWN = 20;

/** The base model and the tenant's adapters by a part of their name; never all of them. */
export function useModels(text = "") {
  const name = text.trim().toLowerCase() || undefined;
  return useQuery({
    queryKey: ["models", name],
    queryFn: async () => {
      const query = { name, limit: SHOWN };
      return (await answer(api.GET("/v1/models", { params: { query } }))).data.map((one) => one.id);
    },
    placeholderData: keepPreviousData,
  });
}
