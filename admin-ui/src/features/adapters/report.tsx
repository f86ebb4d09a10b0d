import { CheckCircle2, ChevronRight, OctagonAlert, TriangleAlert } from "lucide-react";
import { isProblem, type Problem } from "@/lib/api/errors";

/** What the validator found, grouped by what is wrong; each opens to the tensors or fields at fault. */
export function Report({
  problems,
  warnings = [],
}: {
  problems: readonly Problem[];
  warnings?: readonly Problem[];
}) {
  if (problems.length === 0 && warnings.length === 0) {
    return (
      <p className="flex items-center gap-2 text-sm text-good">
        <CheckCircle2 aria-hidden className="size-4" /> The validator found nothing to object to.
      </p>
    );
  }
  const wrong = byCode(problems);
  const odd = byCode(warnings);
  const alone = wrong.length + odd.length === 1;
  return (
    <div className="grid gap-2">
      {wrong.map(([code, found]) => (
        <Finding key={code} code={code} found={found} open={alone || found.length <= FEW} bad />
      ))}
      {odd.map(([code, found]) => (
        <Finding key={code} code={code} found={found} open={alone || found.length <= FEW} bad={false} />
      ))}
    </div>
  );
}

/** So few that they are open without asking. */
const FEW = 3;
const SHOWN = 50;

interface FindingProps {
  code: string;
  found: readonly Problem[];
  open: boolean;
  bad: boolean;
}

function Finding({ code, found, open, bad }: FindingProps) {
  const Icon = bad ? OctagonAlert : TriangleAlert;
  return (
    <details className="group rounded-lg border border-line" open={open}>
      <summary className="flex cursor-pointer list-none items-center gap-2 rounded-lg px-3 py-2 text-sm hover:bg-raised/50 [&::-webkit-details-marker]:hidden">
        <ChevronRight
          aria-hidden
          className="size-4 shrink-0 text-ink-soft transition-transform group-open:rotate-90"
        />
        <Icon aria-hidden className={bad ? "size-4 shrink-0 text-bad" : "size-4 shrink-0 text-warn"} />
        <span className="font-medium">{code.replaceAll("_", " ")}</span>
        <span className="ml-auto text-xs whitespace-nowrap text-ink-soft">
          {found.length} {bad ? "problem" : "warning"}
          {found.length === 1 ? "" : "s"}
        </span>
      </summary>
      <ul className="grid gap-2 border-t border-line px-3 py-2 text-sm">
        {found.slice(0, SHOWN).map((problem) => (
          <li key={`${problem.subject} ${problem.message}`}>
            {problem.subject && (
              <code className="block font-mono text-xs break-all text-ink-soft">{problem.subject}</code>
            )}
            {problem.message}
          </li>
        ))}
        {found.length > SHOWN && <li className="text-ink-soft">and {found.length - SHOWN} more</li>}
      </ul>
    </details>
  );
}

function byCode(problems: readonly Problem[]): [string, Problem[]][] {
  const groups = new Map<string, Problem[]>();
  for (const problem of problems) groups.set(problem.code, [...(groups.get(problem.code) ?? []), problem]);
  return [...groups];
}

/** A stored report is the validator's own JSON. */
export function problemsIn(
  report: Record<string, unknown> | null,
  field: "problems" | "warnings",
): Problem[] {
  const found = report?.[field];
  return Array.isArray(found) ? found.filter(isProblem) : [];
}
