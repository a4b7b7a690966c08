# Services and scheduled tasks that run as the account.
$name = (Get-LocalUser -SID $a.sid).Name
$names = @($name, ('.\' + $name), ($env:COMPUTERNAME + '\' + $name), $a.sid)
$found = @(Get-CimInstance -ClassName Win32_Service | Where-Object { $names -contains $_.StartName } | ForEach-Object { 'service ' + $_.Name })
$found += @(Get-ScheduledTask | Where-Object { $names -contains $_.Principal.UserId } | ForEach-Object { 'task ' + $_.TaskPath + $_.TaskName })
Send-Answer @{ result = @{ dependents = $found } }
