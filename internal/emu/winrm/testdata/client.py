"""Talks to the emulator with pywinrm, which knows nothing of it. Reads a JSON document from standard input and prints one."""
import json
import sys
import uuid

import xmltodict
from winrm.exceptions import InvalidCredentialsError
from winrm.protocol import Protocol

SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"


def protocol(job, password):
    if job["transport"] == "ssl":  # Basic: of text, requests would make Latin-1
        password = password.encode()
    return Protocol(endpoint=job["url"], transport=job["transport"], username=job["user"], password=password,
                    ca_trust_path=job["ca"], server_cert_validation="validate", send_cbt=job["binding"])


def send_input(p, shell, command, data):
    header = p._get_soap_header(resource_uri=SHELL + "/cmd", action=SHELL + "/Send", shell_id=shell, message_id=uuid.uuid4())
    stream = {"@Name": "stdin", "@CommandId": command, "@End": "true", "#text": data}
    p.send_message(xmltodict.unparse({"env:Envelope": dict(header, **{"env:Body": {"rsp:Send": {"rsp:Stream": stream}}})}))


def run(p, line, data=None):
    shell = p.open_shell()
    command = p.run_command(shell, line, console_mode_stdin=data is None)
    if data is not None:
        send_input(p, shell, command, data)
    out, err, status = p.get_command_output(shell, command)
    p.cleanup_command(shell, command)
    p.close_shell(shell)
    return {"out": out.decode(), "err": err.decode(), "status": status}


job = json.load(sys.stdin)
answer = {}
try:
    p = protocol(job, job["password"])
    answer["whoami"] = run(p, "whoami")
    answer["script"] = run(p, job["line"], job["input"])
except InvalidCredentialsError:
    answer["refused"] = True
try:
    run(protocol(job, job["password"] + "x"), "whoami")
    answer["wrong"] = "accepted"
except InvalidCredentialsError:
    answer["wrong"] = "refused"
json.dump(answer, sys.stdout)
