// Asks a security key what reeve in a terminal wants to know, and goes back there with the
// answer: to this computer and nowhere else. What to ask stands behind the # of the address,
// which no server is sent; a wrong answer, or one to another question, is of no use.
"use strict";

(() => {
  const at = (id) => document.getElementById(id);
  const wanted = new URLSearchParams(location.hash.slice(1));
  const kinds = {
    add: { text: "Add a security key", parse: "parseCreationOptionsFromJSON", ask: (publicKey) => navigator.credentials.create({ publicKey }) },
    prove: { text: "Show your security key", parse: "parseRequestOptionsFromJSON", ask: (publicKey) => navigator.credentials.get({ publicKey }) },
  };
  const kind = Object.hasOwn(kinds, wanted.get("do")) ? kinds[wanted.get("do")] : undefined;
  const port = Number(wanted.get("port"));
  const state = wanted.get("state") ?? "", code = wanted.get("code") ?? "";
  const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  const decode = (text) => JSON.parse(new TextDecoder().decode(bytes(text)));
  const encode = (value) => btoa(String.fromCharCode(...new TextEncoder().encode(JSON.stringify(value))))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

  let options;
  try {
    options = decode(wanted.get("options") ?? "");
  } catch {
    options = undefined;
  }
  if (!kind || !options || !Number.isInteger(port) || port < 1 || port > 65535 || !/^[A-Z2-7]{26}$/.test(state) || !/^[A-Z2-7]{4}-[A-Z2-7]{4}$/.test(code)) {
    at("what").textContent = "Nothing is asked here. Open this page with the address that reeve shows in the terminal.";
    return;
  }
  if (!window.PublicKeyCredential?.[kind.parse] || !PublicKeyCredential.prototype.toJSON) {
    at("what").textContent = "This browser is too old, or does not trust the certificate of this page: it asks no security key.";
    return;
  }
  at("what").textContent = kind.text;
  at("code").textContent = code;
  at("check").hidden = at("go").hidden = false;
  at("go").addEventListener("click", async () => {
    at("go").disabled = true;
    at("said").textContent = "Waiting for the key…";
    try {
      const got = await kind.ask(PublicKeyCredential[kind.parse](options));
      const back = new URLSearchParams({ state, answer: encode(got.toJSON()) });
      at("said").textContent = "Going back to the terminal…";
      location.replace(`http://127.0.0.1:${port}/callback?${back}`);
    } catch (problem) {
      const known = {
        InvalidStateError: "This key is there already. Use another one.",
        NotAllowedError: "No key answered in time, or it was not allowed to. Try again.",
        SecurityError: "Security keys cannot be used at this address. Ask an administrator: reeve security-keys show.",
      };
      at("said").textContent = known[problem?.name] ?? "The security key cannot be used here.";
      at("go").disabled = false;
    }
  });
})();
