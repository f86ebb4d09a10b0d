import { fileURLToPath } from "node:url";
import tailwindcss from "@tailwindcss/vite";
import { tanstackRouter } from "@tanstack/router-plugin/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

/** `npm run dev` talks to a gateway that runs already; the gateway itself serves what `npm run build` leaves. */
const gateway = process.env.TENANTRY_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  base: "/admin/",
  html: { cspNonce: "__CSP_NONCE__" },
  plugins: [tanstackRouter({ target: "react", autoCodeSplitting: true }), react(), tailwindcss()],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  build: { target: "es2023", assetsInlineLimit: 0, chunkSizeWarningLimit: 400 },
  server: { proxy: { "/api": gateway, "/v1": gateway } },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
});
