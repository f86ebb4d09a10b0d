import { useState } from "react";
import { Button } from "./button";
import { Failed } from "./states";

/**
 * A page that could not be shown, most often because its part of the program did not come. A reload without an answer
 * would leave the browser's own error page, so the gateway is asked first whether it is there.
 */
export function Broken({ error }: { error: unknown }) {
  const [silent, setSilent] = useState(false);

  async function again() {
    const there = await fetch("/admin", { cache: "no-store" }).then(
      (response) => response.ok,
      () => false,
    );
    if (there) location.reload();
    else setSilent(true);
  }

  return (
    <>
      <h1 className="sr-only">This page is not there</h1>
      <Failed error={error} onRetry={() => void again()} />
      {silent && (
        <p role="status" className="text-center text-sm text-ink-soft">
          The gateway does not answer yet.
        </p>
      )}
      <p className="mt-4 text-center">
        <Button look="quiet" onClick={() => history.back()}>
          Back
        </Button>
      </p>
    </>
  );
}

/** The router would reload a page whose program did not come, and offline that loses what is open: it gets to say so. */
export function sayWhatDidNotCome(): void {
  addEventListener("vite:preloadError", (event) => {
    event.payload.message =
      "This part of the console did not come: the gateway does not answer, or was updated.";
  });
}
