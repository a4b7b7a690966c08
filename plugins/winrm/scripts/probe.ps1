# What the host is, what the management account may do, and what the host lacks of the groups and commands
# that a role wants. WMI would not tell an account without rights even the version.
$os = [Environment]::OSVersion.Version
$windows = Get-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
$id = [Security.Principal.WindowsIdentity]::GetCurrent()
$principal = New-Object Security.Principal.WindowsPrincipal($id)
$system = Get-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System'
$module = [bool](Get-Command -Name New-LocalUser -ErrorAction SilentlyContinue)
$admin = $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
# An administrator without an administrator's rights has the group for denials only, which .NET does not show.
$member = [bool](whoami.exe /groups /fo csv /nh | Select-String -SimpleMatch '"S-1-5-32-544"')
$groups = @()
if ($module -and $admin) { $groups = @(Get-LocalGroup | ForEach-Object { $_.Name; $_.SID.Value }) }
Send-Answer @{ result = @{
  caption = [string]$windows.ProductName
  version = [string]$os.Major + '.' + [string]$os.Minor + '.' + [string]$os.Build
  computer = $env:COMPUTERNAME
  powershell = [string]$PSVersionTable.PSVersion
  dc = (Get-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Control\ProductOptions').ProductType -eq 'LanmanNT'
  module = $module
  admin = $admin
  member = $member
  sid = $id.User.Value
  local = $id.Name -like ($env:COMPUTERNAME + '\*')
  filtered = $system.LocalAccountTokenFilterPolicy -ne 1
  nogroups = @($a.groups | Where-Object { $groups -notcontains $_ })
  nocommands = @($a.commands | Where-Object { !(Get-Command -Name $_ -ErrorAction SilentlyContinue) })
} }
