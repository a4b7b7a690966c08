# Ends every script. What the exception says is left out: it is in the language of the host and quotes.
} catch {
  $e = $_.Exception
  while ($e.InnerException) { $e = $e.InnerException }
  Send-Answer @{ error = @{ id = [string]$_.FullyQualifiedErrorId; type = $e.GetType().FullName; code = $e.HResult } }
  exit 3
}
