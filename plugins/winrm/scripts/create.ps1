# A new account, disabled. The secret is bound to a cmdlet as SecureString only, so no log sees it.
$secret = New-Object Security.SecureString
foreach ($c in $utf8.GetString([Convert]::FromBase64String($lines[1])).ToCharArray()) { $secret.AppendChar($c) }
$p = @{ Name = $a.account; Password = $secret; Description = $a.description; Disabled = $true; PasswordNeverExpires = $true; UserMayNotChangePassword = $true }
if ($a.fullname) { $p.FullName = $a.fullname }
if ($a.expires) { $p.AccountExpires = $epoch.AddSeconds($a.expires).ToLocalTime() } else { $p.AccountNeverExpires = $true }
$x = New-LocalUser @p
Send-Answer @{ result = @{ sid = $x.SID.Value } }
