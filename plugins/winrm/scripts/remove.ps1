Remove-LocalUser -SID $a.sid
$profile_left = $false
try {
  Get-CimInstance -ClassName Win32_UserProfile | Where-Object { $_.SID -eq $a.sid } | Remove-CimInstance
} catch { $profile_left = $true }
Send-Answer @{ result = @{ profileleft = $profile_left } }
