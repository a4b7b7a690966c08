# Enabled, not locked out after wrong passwords, expires when it should.
$x = Get-LocalUser -SID $a.sid
if ($a.expires) {
  $when = $epoch.AddSeconds($a.expires).ToLocalTime()
  Set-LocalUser -SID $x.SID -AccountExpires $when
} else {
  Set-LocalUser -SID $x.SID -AccountNeverExpires
}
$d = [ADSI]('WinNT://' + $env:COMPUTERNAME + '/' + $x.Name + ',user')
if ($d.psbase.InvokeGet('IsAccountLocked')) {
  $d.psbase.InvokeSet('IsAccountLocked', $false)
  $d.psbase.CommitChanges()
}
Enable-LocalUser -SID $x.SID
Send-Answer @{ result = @{ } }
