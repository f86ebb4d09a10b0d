import { cva, type VariantProps } from "class-variance-authority";
import { Slot } from "radix-ui";
import type { ComponentProps } from "react";
import { cn } from "@/lib/cn";

export const buttonStyle = cva(
  "inline-flex shrink-0 items-center justify-center gap-1.5 rounded-md text-sm font-medium whitespace-nowrap transition-colors disabled:pointer-events-none disabled:opacity-55 [&_svg]:size-4 [&_svg]:shrink-0",
  {
    variants: {
      look: {
        solid: "bg-accent text-accent-ink hover:bg-accent/90",
        outline: "border border-line bg-surface text-ink hover:bg-raised",
        quiet: "text-ink-soft hover:bg-raised hover:text-ink",
        danger: "border border-line bg-surface text-bad hover:border-bad hover:bg-bad-wash",
        dangerSolid: "bg-bad text-surface hover:bg-bad/90",
      },
      size: { md: "h-9 px-3.5", sm: "h-8 px-2.5 text-[0.85rem]", icon: "size-8" },
    },
    defaultVariants: { look: "outline", size: "md" },
  },
);

type Props = ComponentProps<"button"> & VariantProps<typeof buttonStyle> & { asChild?: boolean };

export function Button({ className, look, size, asChild = false, type = "button", ...rest }: Props) {
  const Tag = asChild ? Slot.Root : "button";
  return (
    <Tag type={asChild ? undefined : type} className={cn(buttonStyle({ look, size }), className)} {...rest} />
  );
}
