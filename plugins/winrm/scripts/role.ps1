# One command of a role. It came over standard input, so it is not on a command line either.
$global:LASTEXITCODE = 0
& ([ScriptBlock]::Create($a.command)) | Out-Null
if ($global:LASTEXITCODE -ne 0) { throw 'ReeveExitStatus' }
Send-Answer @{ result = @{ } }
