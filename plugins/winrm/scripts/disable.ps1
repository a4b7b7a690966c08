Disable-LocalUser -SID $a.sid
Send-Answer @{ result = @{ } }
