# What the host is, and what the management account may do.
$os = Get-CimInstance -ClassName Win32_OperatingSystem
$id = [Security.Principal.WindowsIdentity]::GetCurrent()
$principal = New-Object Security.Principal.WindowsPrincipal($id)
$system = Get-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System'
Send-Answer @{ result = @{
  caption = [string]$os.Caption
  version = [string]$os.Version
  computer = $env:COMPUTERNAME
  powershell = [string]$PSVersionTable.PSVersion
  dc = (Get-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Control\ProductOptions').ProductType -eq 'LanmanNT'
  module = [bool](Get-Command -Name New-LocalUser -ErrorAction SilentlyContinue)
  admin = $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
  local = $id.Name -like ($env:COMPUTERNAME + '\*')
  filtered = $system.LocalAccountTokenFilterPolicy -ne 1
} }
