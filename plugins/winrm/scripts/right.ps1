# Gives or takes one account right. Windows has no cmdlet for it; these are the functions of ntsecapi.h.
Add-Type -TypeDefinition @'
using System;
using System.Runtime.InteropServices;
public class ReeveLsa {
[StructLayout(LayoutKind.Sequential)] public struct A { public int L; public IntPtr R, N; public int T; public IntPtr D, Q; }
[StructLayout(LayoutKind.Sequential)] public struct S { public ushort L, M; public IntPtr B; }
[DllImport("advapi32.dll")] static extern uint LsaOpenPolicy(IntPtr s, ref A a, int m, out IntPtr h);
[DllImport("advapi32.dll")] static extern uint LsaAddAccountRights(IntPtr h, byte[] sid, S[] r, int n);
[DllImport("advapi32.dll")] static extern uint LsaRemoveAccountRights(IntPtr h, byte[] sid, [MarshalAs(UnmanagedType.U1)] bool all, S[] r, int n);
[DllImport("advapi32.dll")] static extern int LsaNtStatusToWinError(uint s);
[DllImport("advapi32.dll")] static extern uint LsaClose(IntPtr h);
public static int Set(byte[] sid, string right, bool add) {
A a = new A(); IntPtr h; uint s = LsaOpenPolicy(IntPtr.Zero, ref a, 0x811, out h);
if (s != 0) return LsaNtStatusToWinError(s);
S[] r = new S[1]; r[0].B = Marshal.StringToHGlobalUni(right); r[0].L = (ushort)(2 * right.Length); r[0].M = (ushort)(2 * right.Length + 2);
s = add ? LsaAddAccountRights(h, sid, r, 1) : LsaRemoveAccountRights(h, sid, false, r, 1);
LsaClose(h); Marshal.FreeHGlobal(r[0].B);
return s == 0 ? 0 : LsaNtStatusToWinError(s);
} }
'@
$sid = New-Object Security.Principal.SecurityIdentifier($a.sid)
$bytes = New-Object 'byte[]' $sid.BinaryLength
$sid.GetBinaryForm($bytes, 0)
$n = [ReeveLsa]::Set($bytes, $a.right, $a.add)
if ($n -ne 0) {
  Send-Answer @{ error = @{ id = 'Win32'; type = ''; code = $n } }
  exit 3
}
Send-Answer @{ result = @{ } }
