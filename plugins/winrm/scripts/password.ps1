# Sets the password; with "check" only if another one is set. ValidateCredentials is a method: nothing logs what it is given.
$x = Get-LocalUser -SID $a.sid
$text = $utf8.GetString([Convert]::FromBase64String($lines[1]))
$same = $false
if ($a.check -and $x.Enabled) {
  try {
    Add-Type -AssemblyName System.DirectoryServices.AccountManagement
    $machine = New-Object DirectoryServices.AccountManagement.PrincipalContext('Machine')
    $same = $machine.ValidateCredentials($x.Name, $text)
  } catch { $same = $false }
}
if (!$same) {
  $secret = New-Object Security.SecureString
  foreach ($c in $text.ToCharArray()) { $secret.AppendChar($c) }
  Set-LocalUser -SID $x.SID -Password $secret
}
Send-Answer @{ result = @{ changed = !$same } }
