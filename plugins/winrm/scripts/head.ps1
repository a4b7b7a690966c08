# Begins every script. Standard input is two lines: the arguments and the secret, each in base64.
# Where a policy constrains PowerShell nothing of this would run; the answer for that is written out: the error ReeveLanguageMode.
if ($ExecutionContext.SessionState.LanguageMode -ne 'FullLanguage') {
  'reeve eyJlcnJvciI6eyJpZCI6IlJlZXZlTGFuZ3VhZ2VNb2RlIn19'
  exit 3
}
# $input is what powershell.exe itself reads from there; anything else would race with it.
$lines = @($input)
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$utf8 = New-Object Text.UTF8Encoding($false)
$epoch = ([DateTime]'1970-01-01T00:00:00Z').ToUniversalTime()
function Get-Seconds($d) { if ($d) { [int64][Math]::Floor(($d.ToUniversalTime() - $epoch).TotalSeconds) } }
function Send-Answer($o) {
  [Console]::Out.WriteLine('reeve ' + [Convert]::ToBase64String($utf8.GetBytes((ConvertTo-Json -InputObject $o -Compress -Depth 5))))
}
try {
$a = ConvertFrom-Json -InputObject ($utf8.GetString([Convert]::FromBase64String($lines[0])))
