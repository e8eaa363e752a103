// Reads documents, one JSON a line; writes for each the errors that @asyncapi/parser finds, as one JSON a line.
import { createInterface } from 'node:readline';
import { Parser } from '@asyncapi/parser';

const parser = new Parser();
for await (const line of createInterface({ input: process.stdin })) {
  if (!line) continue;
  const { document, diagnostics } = await parser.parse(line);
  const errors = diagnostics.filter((found) => found.severity === 0);
  console.log(JSON.stringify({
    errors: errors.map((found) => `${found.path.join('/')}: ${found.message}`),
    operations: document ? document.operations().all().length : 0,
  }));
}
