// Commands for a POSIX shell, to be copied into a terminal.

const octal = (text) => [...new TextEncoder().encode(text)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");

// One word. A control character would act on the terminal instead of being typed, so printf writes it; a newline within
// quotes is harmless, and at the end the shell would drop it.
export function quoted(text) {
  if (/^[\w./:@%+,-]+$/.test(text)) return text;
  if (!/(?!\n)\p{Cc}/u.test(text) || text.endsWith("\n")) return `'${text.replaceAll("'", "'\\''")}'`;
  const format = text.replace(/[\p{Cc}\\'%]/gu, (each) => (each === "%" ? "%%" : octal(each)));
  return `"$(printf '${format}')"`;
}

// A name may begin with a dash: it is an operand, and the flow a value.
export const addAlias = (each) =>
  `flow-outcomes alias add --org=${each.org} --flow=${quoted(each.flow_id)} -- ${quoted(each.old_name)} ${quoted(each.new_name)}`;
