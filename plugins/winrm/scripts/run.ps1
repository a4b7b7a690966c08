# A task, with its output as it comes. Its exit status is that of the last program it ran, or 1 if it failed.
$ErrorActionPreference = 'Continue'
$global:LASTEXITCODE = 0
try {
  [Console]::OutputEncoding = $utf8
  & ([ScriptBlock]::Create($a.command)) 2>&1 | ForEach-Object {
    if ($_ -is [Management.Automation.ErrorRecord]) { [Console]::Error.WriteLine([string]$_) } else { $_ }
  } | Out-String -Stream -Width 250 | ForEach-Object { [Console]::Out.WriteLine($_) }
} catch {
  [Console]::Error.WriteLine([string]$_)
  exit 1
}
exit $global:LASTEXITCODE
