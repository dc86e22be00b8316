// A provider of OpenID Connect for tests: the npm package `oidc-provider`. Its development pages log in whoever gives a
// name, with any password.
//
//   node provider.mjs MODULES USERS
//
// MODULES is the folder `node_modules`. USERS is a JSON file with the claims of each user, read at each login. The
// program prints its port, and reads the address to which it sends browsers back.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [modules, users] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(`${modules}/oidc-provider/lib/index.js`));

let handler = (_, response) => response.writeHead(503).end();
const server = createServer((request, response) => handler(request, response));
server.listen(0, '127.0.0.1', () => console.log(server.address().port));

for await (const redirect of createInterface({ input: process.stdin })) {
  const provider = new Provider(`http://127.0.0.1:${server.address().port}`, {
    clients: [{
      client_id: 'brigandine',
      client_secret: 'the secret of a test',
      redirect_uris: [redirect],
      grant_types: ['authorization_code'],
      response_types: ['code'],
    }],
    claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
    cookies: { keys: ['a key of a test'] },
    features: { devInteractions: { enabled: true } },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, ...JSON.parse(readFileSync(users, 'utf8'))[id] }),
    }),
    pkce: { required: () => true },
  });
  handler = provider.callback();
  console.log('ready');
}
process.exit(0);
