# One script at a time works on an account. The lock is a file that nobody else can open and that Windows deletes when the process is gone,
# however it ends. It is where only administrators make files: of a named mutex anybody could be first, and then could not be disabled.
for ($k = 0; $a.lock -and !$lock; $k++) {
  try {
    $lock = [IO.FileStream]::new($env:SystemRoot + '\' + $a.lock, [IO.FileMode]::OpenOrCreate, [IO.FileAccess]::ReadWrite, [IO.FileShare]::None, 1, [IO.FileOptions]::DeleteOnClose)
  } catch {
    # Of a file that is just being deleted Windows says for a moment that access is denied.
    if ($_.Exception.GetBaseException().HResult -ne -2147024864 -and $k -ge 5) { throw }
    if ($k -ge 100) { throw 'ReeveBusy' }
    Start-Sleep -Milliseconds 100
  }
}
