// Reads messages with mailparser: a line of base64 comes in for each, a line of JSON goes out.
//
// Argument: folder with node_modules.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/package.json`);
const { simpleParser } = require("mailparser");
// What mailparser itself decodes with; fields that it does not know it leaves to the caller.
const libmime = createRequire(require.resolve("mailparser"))("libmime");
// What makes html of text, text of html, and links of addresses is left out: only what was sent counts.
const options = { skipHtmlToText: true, skipTextToHtml: true, skipImageLinks: true, skipTextLinks: true };

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  let answer;
  try {
    const mail = await simpleParser(Buffer.from(line, "base64"), options);
    const attachments = mail.attachments.map((file) => ({
      ...file,
      headers: undefined,
      content: file.content.toString("base64"),
    }));
    const custom = mail.headers.has("x-custom") ? libmime.decodeWords(mail.headers.get("x-custom")) : null;
    const sender = mail.headers.get("sender");
    answer = { ...mail, headers: undefined, headerLines: undefined, attachments, custom, sender };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
