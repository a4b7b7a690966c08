# Facts of one account (and of one that it was to become), or of all if none is named.
# Groups come from ADSI: Get-LocalGroupMember fails on members that are gone.
$all = @(Get-Process -IncludeUserName)
function Get-Facts($x) {
  $who = $env:COMPUTERNAME + '\' + $x.Name
  $d = [ADSI]('WinNT://' + $env:COMPUTERNAME + '/' + $x.Name + ',user')
  $groups = @($d.psbase.Invoke('Groups') | ForEach-Object {
    $g = [ADSI]$_
    @{ name = [string]$g.psbase.InvokeGet('Name'); sid = (New-Object Security.Principal.SecurityIdentifier($g.psbase.InvokeGet('objectSid'), 0)).Value }
  })
  @{
    name = $x.Name; sid = $x.SID.Value; enabled = [bool]$x.Enabled
    expires = (Get-Seconds $x.AccountExpires); changed = (Get-Seconds $x.PasswordLastSet); logon = (Get-Seconds $x.LastLogon)
    lockedout = [bool]$d.psbase.InvokeGet('IsAccountLocked'); mustchange = [bool]$d.psbase.InvokeGet('PasswordExpired')
    description = [string]$x.Description; fullname = [string]$x.FullName; groups = $groups
    sessions = @($all | Where-Object { $_.UserName -eq $who } | Select-Object -ExpandProperty SessionId -Unique).Count
  }
}
$found = @(Get-LocalUser | Where-Object { !$a.account -or $a.account, $a.temporary -contains $_.Name } | ForEach-Object { Get-Facts $_ })
Send-Answer @{ result = @{
  me = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
  dc = (Get-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Control\ProductOptions').ProductType -eq 'LanmanNT'
  now = Get-Seconds ([DateTime]::UtcNow)
  accounts = $found
} }
