# What the host is, and what the management account may do. WMI would not tell an account without rights even the version.
$os = [Environment]::OSVersion.Version
$windows = Get-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
$id = [Security.Principal.WindowsIdentity]::GetCurrent()
$principal = New-Object Security.Principal.WindowsPrincipal($id)
$system = Get-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System'
Send-Answer @{ result = @{
  caption = [string]$windows.ProductName
  version = [string]$os.Major + '.' + [string]$os.Minor + '.' + [string]$os.Build
  computer = $env:COMPUTERNAME
  powershell = [string]$PSVersionTable.PSVersion
  dc = (Get-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Control\ProductOptions').ProductType -eq 'LanmanNT'
  module = [bool](Get-Command -Name New-LocalUser -ErrorAction SilentlyContinue)
  admin = $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
  local = $id.Name -like ($env:COMPUTERNAME + '\*')
  filtered = $system.LocalAccountTokenFilterPolicy -ne 1
} }
