# A new account, disabled. It gets its name last. Until then it has one by which the next try knows it for ours, should the host die in
# between. The secret is bound to a cmdlet as SecureString only, so no log sees it.
if (Get-LocalUser | Where-Object { $_.Name -eq $a.account }) { throw 'UserExists' }
$secret = New-Object Security.SecureString
foreach ($c in $utf8.GetString([Convert]::FromBase64String($lines[1])).ToCharArray()) { $secret.AppendChar($c) }
$p = @{ Name = $a.temporary; Password = $secret; Description = $a.description; Disabled = $true; PasswordNeverExpires = $true; UserMayNotChangePassword = $true }
if ($a.fullname) { $p.FullName = $a.fullname }
if ($a.expires) { $p.AccountExpires = $epoch.AddSeconds($a.expires).ToLocalTime() } else { $p.AccountNeverExpires = $true }
$x = New-LocalUser @p
try { Rename-LocalUser -SID $x.SID -NewName $a.account } catch {
  Remove-LocalUser -SID $x.SID
  throw
}
Send-Answer @{ result = @{ sid = $x.SID.Value } }
