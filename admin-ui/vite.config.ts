import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import tailwindcss from "@tailwindcss/vite";
import { tanstackRouter } from "@tanstack/router-plugin/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

/** `npm run dev` talks to a gateway that runs already; the gateway itself serves what `npm run build` leaves. */
const gateway = process.env.TENANTRY_URL ?? "http://127.0.0.1:8080";

const assets = fileURLToPath(new URL("./dist/assets/", import.meta.url));

/** Beside every asset that gets smaller by it, the copies that the gateway sends to those who take them. */
const compressed = {
  name: "compressed",
  apply: "build" as const,
  closeBundle() {
    for (const name of readdirSync(assets).filter((one) => /\.(js|css|svg)$/.test(one))) {
      const whole = readFileSync(assets + name);
      writeFileSync(`${assets}${name}.gz`, gzipSync(whole, { level: 9 }));
      writeFileSync(`${assets}${name}.br`, brotliCompressSync(whole));
    }
  },
};

export default defineConfig({
  base: "/admin/",
  html: { cspNonce: "__CSP_NONCE__" },
  plugins: [tanstackRouter({ target: "react", autoCodeSplitting: true }), react(), tailwindcss(), compressed],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  build: { target: "es2023", assetsInlineLimit: 0, chunkSizeWarningLimit: 400 },
  server: { proxy: { "/api": gateway, "/v1": gateway } },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
});
