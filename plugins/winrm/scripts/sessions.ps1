# Ends the account's sessions, then whatever still runs as it (services and tasks are in session 0, which has no logoff).
$who = $env:COMPUTERNAME + '\' + (Get-LocalUser -SID $a.sid).Name
function Get-Own { Get-Process -IncludeUserName | Where-Object { $_.UserName -eq $who } }
$ended = @(Get-Own | Select-Object -ExpandProperty SessionId -Unique)
foreach ($i in $ended) { if ($i -ne 0) { logoff.exe $i | Out-Null } }
for ($k = 0; $k -lt 50 -and @(Get-Own).Count -gt 0; $k++) {
  Get-Own | Stop-Process -Force -ErrorAction SilentlyContinue
  Start-Sleep -Milliseconds 100
}
Send-Answer @{ result = @{ ended = $ended.Count; left = @(Get-Own).Count } }
