// An OpenID provider, with the settings that come on standard input. It prints its issuer and
// ends when its input does.
import { createServer } from 'node:https';
import { generateKeyPairSync } from 'node:crypto';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const lines = createInterface({ input: process.stdin });
lines.on('close', () => process.exit(0));
lines.once('line', (line) => {
  const given = JSON.parse(line);
  const jwk = (type, options, alg) => ({ ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: alg });
  const server = createServer({ cert: given.certificate, key: given.key });
  server.listen(0, '127.0.0.1', () => {
    const issuer = `https://127.0.0.1:${server.address().port}`;
    const client = {
      client_id: given.client_id, redirect_uris: ['http://127.0.0.1/callback', ...(given.redirects ?? [])], application_type: 'native',
      response_types: ['code'], grant_types: ['authorization_code'], id_token_signed_response_alg: given.algorithm,
      token_endpoint_auth_method: given.client_secret ? given.method : 'none',
    };
    if (given.client_secret) client.client_secret = given.client_secret;
    const provider = new Provider(issuer, {
      clients: [client],
      jwks: { keys: [jwk('rsa', { modulusLength: 2048 }, 'RS256'), jwk('ec', { namedCurve: 'P-256' }, 'ES256'), jwk('ed25519', {}, 'EdDSA')] },
      enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA', 'HS256'] },
      claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['preferred_username', 'name'], groups: ['groups'] },
      scopes: ['openid', 'profile', 'email', 'groups'],
      conformIdTokenClaims: given.only_in_userinfo,
      pkce: { required: () => true },
      cookies: { keys: ['only for tests'] },
      findAccount: (_, id) => (given.people[id] ? { accountId: id, claims: () => ({ sub: id, ...given.people[id] }) } : undefined),
    });
    server.on('request', provider.callback());
    process.stdout.write(JSON.stringify({ issuer }) + '\n');
  });
});
