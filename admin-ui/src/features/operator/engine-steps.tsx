import type { EngineReport } from "@/lib/api/schema";
import { count, percent } from "@/lib/format";
import { brieflyTimed, costsOf } from "./engine";
import { Facts, Part } from "./facts";

/** The step-time model: what it expected of the last steps, beside what they took. */
export function Steps({ engine }: { engine: EngineReport }) {
  const times = engine.step_times;
  const learned = times.took > 0;
  return (
    <Part title="Step time, fitted while serving">
      <Facts
        className="grid-cols-2 sm:grid-cols-4"
        facts={[
          ["Expected, lately", learned ? brieflyTimed(times.expected) : "–"],
          ["Taken, lately", learned ? brieflyTimed(times.took) : "–"],
          ["Off by, a step", learned ? percent(times.error) : "–"],
          ["Steps fitted to", count(times.measured)],
        ]}
      />
      {learned ? (
        <details className="mt-3 text-sm">
          <summary className="cursor-pointer text-xs text-accent">What a step is expected to cost</summary>
          <table className="mt-2 w-full max-w-md text-sm">
            <caption className="sr-only">What a step is expected to cost on {engine.name}</caption>
            <tbody>
              {costsOf(times).map(([label, seconds]) => (
                <tr key={label} className="border-b border-line last:border-b-0">
                  <th scope="row" className="py-1.5 pr-4 text-left font-normal">
                    {label}
                  </th>
                  <td className="py-1.5 text-right whitespace-nowrap tabular-nums">
                    {seconds > 0 ? brieflyTimed(seconds) : "nothing seen"}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </details>
      ) : (
        <p className="mt-2 text-xs text-ink-soft">
          Nothing is expected of a step before a few have been measured.
        </p>
      )}
    </Part>
  );
}
