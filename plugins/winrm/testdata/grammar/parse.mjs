// Reads scripts (JSON, name to text) from standard input and prints where they are not PowerShell.
import { readFileSync } from 'node:fs';
import { Language, Parser } from 'web-tree-sitter';

await Parser.init();
const parser = new Parser();
parser.setLanguage(await Language.load('node_modules/tree-sitter-powershell/tree-sitter-powershell.wasm'));

function faults(node, found) {
  if (node.isError || node.isMissing) {
    found.push(node);
  } else if (node.hasError) {
    node.children.forEach((child) => faults(child, found));
  }
  return found;
}

for (const [name, text] of Object.entries(JSON.parse(readFileSync(0, 'utf8')))) {
  for (const node of faults(parser.parse(text).rootNode, [])) {
    console.log(`${name}, line ${node.startPosition.row + 1}: ${text.split('\n')[node.startPosition.row]}`);
  }
}
