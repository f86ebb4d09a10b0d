import { changeHeaders, refused } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import type { AliasView, VersionView } from "@/lib/api/schema";

const WEIGHTS = "adapter_model.safetensors";
const CONFIG = "adapter_config.json";

/** What was chosen, as the API wants it; or why it cannot be an adapter, said before a byte is sent. */
export function pickFiles(files: readonly File[]): { files: File[] } | { why: string } {
  const zips = files.filter((file) => file.name.endsWith(".zip"));
  if (zips.length === 1 && files.length === 1) return { files: zips };
  if (zips.length > 0) return { why: "Send one zip alone, or the two files." };
  const wanted = [CONFIG, WEIGHTS].map((name) => files.find((file) => file.name === name));
  const missing = [CONFIG, WEIGHTS].filter((_, i) => !wanted[i]);
  if (missing.length > 0) {
    const others = files.filter((file) => ![CONFIG, WEIGHTS, "README.md"].includes(file.name));
    const unsafe = others.find((file) => /\.(bin|pt|pth|pkl|ckpt)$/.test(file.name));
    if (unsafe)
      return { why: `${unsafe.name} may carry code, so it is never read: save the adapter as safetensors.` };
    return { why: `${missing.join(" and ")} ${missing.length > 1 ? "are" : "is"} missing.` };
  }
  return { files: wanted.filter((file) => file !== undefined) };
}

/** One upload, with its progress as a share of the bytes sent; 1 means that the validator is at work. */
export function upload(
  name: string,
  files: readonly File[],
  onProgress: (share: number) => void,
  signal: AbortSignal,
): Promise<VersionView> {
  const body = new FormData();
  for (const file of files) body.append("file", file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/v1/adapters/${encodeURIComponent(name)}/versions`);
    for (const [header, value] of Object.entries(changeHeaders())) request.setRequestHeader(header, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.upload.onload = () => onProgress(1);
    request.onload = () => {
      if (request.status === 201) resolve(request.response as VersionView);
      else reject(refused({ status: request.status, url: request.responseURL }, request.response));
    };
    request.onerror = () =>
      reject(new ApiError(0, "unreachable", "The gateway does not answer.", null, null, []));
    request.onabort = () => reject(new DOMException("Stopped.", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

/** Under which names a version answers, by the aliases as they stand. */
export function answersAs(
  version: VersionView,
  aliases: readonly Pick<AliasView, "alias" | "version">[],
): string {
  const mine = aliases.filter((one) => one.version === version.number).map((one) => one.alias);
  const others = mine.filter((alias) => alias !== "default").map((alias) => `${version.adapter}@${alias}`);
  if (mine.includes("default"))
    return `The name ${[version.adapter, ...others].join(" and ")} answers with it from now on.`;
  const now = aliases.find((one) => one.alias === "default");
  const names = [version.model, ...others].join(" and ");
  return now
    ? `It answers as ${names}. The name alone answers with version ${now.version}, until you promote this one.`
    : `It answers as ${names}. The name alone answers with nothing, until you promote this one.`;
}

const SPELT = "1 to 63 of a–z, 0–9, '.', '_' and '-', starting with a letter or digit.";
const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;

export function nameProblem(name: string): string | null {
  if (!name) return "Give the adapter a name.";
  return NAME.test(name) ? null : SPELT;
}

/** Why this cannot be a new alias's name. */
export function aliasProblem(name: string, aliases: readonly Pick<AliasView, "alias">[]): string | null {
  if (!NAME.test(name)) return SPELT;
  return aliases.some((one) => one.alias === name)
    ? `There is an alias ${name} already: move that one from the list of aliases.`
    : null;
}
