// Runs oauth2-mock-server behind HTTPS, and checks the signatures that it does not look at.
//
// Arguments: folder with node_modules, HTTPS port, port of the mock server itself, certificate, key, public key of
// the clients, user that tokens are for. Tokens, rotation and introspection are the mock server's; this only verifies
// assertions (RFC 7523), with the library jose, and says whose an introspected token is.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { pathToFileURL } from "node:url";

const [folder, port, ownPort, cert, key, publicKey, username] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const load = async (name) => {
  const module = await import(pathToFileURL(require.resolve(name)));
  return module.default && typeof module.default === "object" ? { ...module.default, ...module } : module;
};
const { OAuth2Server } = await load("oauth2-mock-server");
const mockRequire = createRequire(require.resolve("oauth2-mock-server"));
const jose = await import(pathToFileURL(mockRequire.resolve("jose")));

const mock = new OAuth2Server();
await mock.issuer.keys.generate("RS256");
await mock.start(Number(ownPort), "127.0.0.1");
const INTROSPECTED = "x-introspected-token";
const issued = new Set();
mock.service.on("beforeResponse", (response, request) => {
  issued.add(response.body.access_token);
  console.log(`token for ${request.body.grant_type} ${request.body.refresh_token ?? ""}`);
});
mock.service.on("beforeIntrospect", (response, request) => {
  const active = issued.has(request.headers[INTROSPECTED]); // the mock server itself does not read that form
  response.body = active ? { active, username, scope: "mail" } : { active };
});

const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const verify = async (token, audience, algorithm) =>
  jose.jwtVerify(token, await jose.importSPKI(readFileSync(publicKey, "utf8"), algorithm), { audience });

// The assertion proves who asks: the mock server then answers as for client credentials.
async function checked(form, audience) {
  if (form.get("grant_type") === JWT_BEARER) {
    const { payload } = await verify(form.get("assertion"), audience, "RS256");
    if (payload.sub !== username || !payload.iss) throw new Error("wrong subject");
    form.set("grant_type", "client_credentials");
    if (payload.scope) form.set("scope", payload.scope);
  } else if (form.has("client_assertion")) {
    const { payload } = await verify(form.get("client_assertion"), audience, "RS256");
    if (payload.sub !== form.get("client_id")) throw new Error("wrong client");
  }
  return form;
}

createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    const headers = { "content-type": "application/json" };
    try {
      let body = Buffer.concat(chunks).toString();
      if (request.url === "/token") {
        body = String(await checked(new URLSearchParams(body), `https://localhost:${port}/token`));
      }
      const asked = request.url === "/introspect" ? (new URLSearchParams(body).get("token") ?? "") : "";
      const answer = await fetch(`http://127.0.0.1:${ownPort}${request.url}`, {
        method: request.method,
        headers: { "content-type": request.headers["content-type"] ?? "", [INTROSPECTED]: asked },
        body: request.method === "POST" ? body : undefined,
        redirect: "manual",
      });
      const location = answer.headers.get("location");
      if (location) headers.location = location;
      headers["content-type"] = answer.headers.get("content-type") ?? "text/plain";
      response.writeHead(answer.status, headers).end(await answer.text());
    } catch (error) {
      console.log(`refused: ${error.message}`);
      response.writeHead(400, headers).end(JSON.stringify({ error: "invalid_grant", error_description: error.message }));
    }
  });
}).listen(Number(port), "127.0.0.1");
