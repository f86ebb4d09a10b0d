import { ListFilter } from "lucide-react";
import { Fragment } from "react";
import { Button } from "@/components/ui/button";
import { Menu, MenuCheck, MenuLabel, MenuLine } from "@/components/ui/menu";
import { GROUPS, type Kind, type Kinds, toggled, told } from "./kinds";

/** Which kinds of act are told: all, all but sign-ins, or some. */
export function KindsMenu({ kinds, onChange }: { kinds: Kinds; onChange: (next: Kinds) => void }) {
  const { only, signIns } = kinds;
  return (
    <Menu
      trigger={
        <Button aria-label={`Kinds of act: ${told(kinds)}`}>
          <ListFilter aria-hidden /> {told(kinds)}
        </Button>
      }
    >
      <MenuCheck checked={!only && !signIns} onChange={() => onChange({})}>
        All kinds
      </MenuCheck>
      <MenuCheck checked={!only && signIns === "hidden"} onChange={() => onChange({ signIns: "hidden" })}>
        All but sign-ins
      </MenuCheck>
      {GROUPS.map(([group, members]) => (
        <Fragment key={group}>
          <MenuLine />
          <MenuLabel>{group}</MenuLabel>
          {(Object.entries(members) as [Kind, (typeof members)[Kind]][]).map(([kind, one]) => (
            <MenuCheck
              key={kind}
              checked={only?.includes(kind) ?? false}
              onChange={(on) => onChange({ only: toggled(only, kind, on) })}
            >
              {one?.[0]}
            </MenuCheck>
          ))}
        </Fragment>
      ))}
    </Menu>
  );
}
