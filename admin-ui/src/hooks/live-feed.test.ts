import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { PaceView } from "@/lib/api/schema";
import { AGAIN_MS, listen, SILENT_MS } from "./live-feed";

class Source {
  static CLOSED = 2;
  static made: Source[] = [];
  readyState = 1;
  onmessage: ((event: { data: string }) => void) | null = null;
  onerror: (() => void) | null = null;
  constructor() {
    Source.made.push(this);
  }
  close() {
    this.readyState = Source.CLOSED;
  }
}

const page = new EventTarget() as EventTarget & { hidden: boolean };
const pace = { settled: 1 } as PaceView;
const told = { pace: vi.fn(), silent: vi.fn() };
let stop = () => {};

beforeEach(() => {
  vi.useFakeTimers();
  Source.made = [];
  page.hidden = false;
  vi.stubGlobal("document", page);
  vi.stubGlobal("navigator", {});
  vi.stubGlobal("EventSource", Source);
  told.pace.mockClear();
  told.silent.mockClear();
  stop = listen("key_1", told);
});

afterEach(() => {
  stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const last = () => Source.made.at(-1) as Source;

it("asks again for a stream that was refused, after a minute and not for ever by polling", () => {
  last().close();
  last().onerror?.();
  expect(told.silent).toHaveBeenCalled();
  vi.advanceTimersByTime(AGAIN_MS - 1);
  expect(Source.made).toHaveLength(1);
  vi.advanceTimersByTime(1);
  expect(Source.made).toHaveLength(2);
  last().onmessage?.({ data: JSON.stringify(pace) });
  expect(told.pace).toHaveBeenCalledWith(pace);
});

it("leaves a lost connection to the browser, and says that nothing comes", () => {
  last().onmessage?.({ data: JSON.stringify(pace) });
  last().onerror?.();
  expect(told.silent).not.toHaveBeenCalled();
  vi.advanceTimersByTime(SILENT_MS);
  expect(told.silent).toHaveBeenCalledOnce();
  expect(Source.made).toHaveLength(1);
});

it("holds no connection for a tab that nobody sees", () => {
  page.hidden = true;
  page.dispatchEvent(new Event("visibilitychange"));
  expect(last().readyState).toBe(Source.CLOSED);
  vi.advanceTimersByTime(AGAIN_MS * 2);
  expect(Source.made).toHaveLength(1);
  page.hidden = false;
  page.dispatchEvent(new Event("visibilitychange"));
  expect(Source.made).toHaveLength(2);
});
