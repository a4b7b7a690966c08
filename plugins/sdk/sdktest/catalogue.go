package sdktest

import "github.com/reeve-pam/reeve/plugins/sdk"

// What checks need of a connector.
var (
	probes     = []sdk.Power{sdk.PowerProbe}
	provisions = []sdk.Power{sdk.PowerProvision}
	verifies   = []sdk.Power{sdk.PowerProvision, sdk.PowerVerify}
	inspects   = []sdk.Power{sdk.PowerProvision, sdk.PowerInspect}
	discovers  = []sdk.Power{sdk.PowerProvision, sdk.PowerDiscover}
	probesToo  = []sdk.Power{sdk.PowerProvision, sdk.PowerProbe}
	runs       = []sdk.Power{sdk.PowerProvision, sdk.PowerRun}
)

// checks is the catalogue, in the order in which the checks are done.
var checks = []Check{
	{"SDK01", "the description is valid, stable and has every power of an account connector", describe, nil},
	{"SDK02", "probe says what the target is and lacks no right", probe, probes},
	{"SDK03", "probe of a target nobody approved fails and shows its identity", probeUnknown, probes},
	{"SDK04", "probe of a target with another identity than the trusted one fails", probeChanged, probes},
	{"SDK05", "probe with a wrong password fails with auth_failed", probeWrongPassword, probes},
	{"SDK06", "plan changes nothing, is the same twice and holds no secret", planIsPure, provisions},
	{"SDK07", "provision makes an account that can log in", provision, provisions},
	{"SDK08", "provision again succeeds and keeps the account", provisionTwice, provisions},
	{"SDK09", "a plan other than the approved one is refused and nothing is done", foreignPlan, provisions},
	{"SDK10", "passwords with every kind of character work", nastyPasswords, provisions},
	{"SDK11", "passwords with control characters are refused and change nothing", controlCharacters, provisions},
	{"SDK12", "hostile account names are refused and change nothing", hostileNames, provisions},
	{"SDK13", "rotate replaces the password, and may be repeated", rotate, provisions},
	{"SDK14", "disable ends logins, and may be repeated", disable, provisions},
	{"SDK15", "enable allows logins again, and may be repeated", enable, provisions},
	{"SDK16", "deprovision removes the account, and may be repeated", deprovision, provisions},
	{"SDK17", "verify tells right, wrong and unreachable apart", verify, verifies},
	{"SDK18", "inspect reads back what was provisioned, and absence", inspect, inspects},
	{"SDK19", "a deadline or cancellation is obeyed within 2 s when the target hangs", hang, provisions},
	{"SDK20", "eight accounts at once all succeed", concurrency, provisions},
	{"SDK21", "no secret is in arguments, environment, events, logs or errors", noSecrets, provisions},
	{"SDK22", "an account that is not ours is neither taken over nor removed", notOurs, provisions},
	{"SDK23", "an account with another identity than recorded is not touched", otherIdentity, provisions},
	{"SDK24", "provision: a connection cut at any point is told truthfully, and trying again succeeds", cutAt(provisioning, cut, 12), provisions},

	{"SDK25", "provision again with another password sets that password", provisionNewPassword, provisions},
	{"SDK26", "a name can be used again after removal, and the old password is dead", provisionAfterRemoval, provisions},
	{"SDK27", "disable, enable and deprovision, repeated, leave the target as it is", repeatChangesNothing, provisions},
	{"SDK28", "disable and enable of an absent account fail with not_found and make nothing", absentIsNotFound, provisions},
	{"SDK29", "deprovision of an account that never was succeeds and changes nothing", absentIsRemoved, provisions},
	{"SDK30", "work on one account leaves one with a longer name alone", namesakesAreLeftAlone, provisions},
	{"SDK31", "provision of a disabled account opens it", provisionOpens, provisions},
	{"SDK32", "four rotations of one account at once end with one password", sameAccount, provisions},
	{"SDK33", "progress tells of every step of the plan, in its order", progressEvents, provisions},

	{"SDK34", "provision: killed at any step, trying again succeeds", crashAt(provisioning), provisions},
	{"SDK35", "rotate: killed at any step, trying again succeeds", crashAt(rotation), provisions},
	{"SDK36", "disable: killed at any step, trying again succeeds", crashAt(disabling), provisions},
	{"SDK37", "enable: killed at any step, trying again succeeds", crashAt(enabling), provisions},
	{"SDK38", "deprovision: killed at any step, trying again succeeds", crashAt(removal), provisions},

	{"SDK39", "rotate: a connection cut at any point is told truthfully, and trying again succeeds", cutAt(rotation, cut, 6), provisions},
	{"SDK40", "disable: a connection cut at any point is told truthfully, and trying again succeeds", cutAt(disabling, cut, 6), provisions},
	{"SDK41", "enable: a connection cut at any point is told truthfully, and trying again succeeds", cutAt(enabling, cut, 6), provisions},
	{"SDK42", "deprovision: a connection cut at any point is told truthfully, and trying again succeeds", cutAt(removal, cut, 6), provisions},
	{"SDK43", "provision: requests lost on the way are told truthfully, and trying again succeeds", cutAt(provisioning, cutAsked, 6), provisions},
	{"SDK44", "rotate: requests lost on the way are told truthfully, and trying again succeeds", cutAt(rotation, cutAsked, 6), provisions},

	{"SDK45", "probe obeys when the target falls silent at any point", stallAt(probing), probesToo},
	{"SDK46", "plan obeys when the target falls silent at any point", stallAt(planning), provisions},
	{"SDK47", "inspect obeys when the target falls silent at any point", stallAt(inspecting), inspects},
	{"SDK48", "verify obeys when the target falls silent at any point", stallAt(verifying), verifies},
	{"SDK49", "discover obeys when the target falls silent at any point", stallAt(discovering), discovers},
	{"SDK50", "provision obeys when the target falls silent at any point, and tells the truth", stallAt(changing(provisioning)), provisions},
	{"SDK51", "rotate obeys when the target falls silent at any point, and tells the truth", stallAt(changing(rotation)), provisions},
	{"SDK52", "disable obeys when the target falls silent at any point, and tells the truth", stallAt(changing(disabling)), provisions},
	{"SDK53", "enable obeys when the target falls silent at any point, and tells the truth", stallAt(changing(enabling)), provisions},
	{"SDK54", "deprovision obeys when the target falls silent at any point, and tells the truth", stallAt(changing(removal)), provisions},

	{"SDK55", "where nothing listens is unreachable, with a fix", nothingListens, provisions},
	{"SDK56", "a target that accepts and says nothing is unreachable, with a fix", hangsAfterAccept, provisions},
	{"SDK57", "a target that hangs up at once is told, with a fix", hangsUp, provisions},
	{"SDK58", "a service of another kind is told, with a fix", otherService, provisions},
	{"SDK59", "an answer without end is told, with a fix, and costs little memory", endlessAnswer, provisions},
	{"SDK60", "every operation refuses a target that is not the trusted one", wrongIdentity, provisions},
	{"SDK61", "every refusal says what to do", everyFix, probesToo},

	{"SDK62", "a kept connection serves nobody with another password", keptConnection, provisions},
	{"SDK63", "a management account without rights is told and changes nothing", withoutRights, probesToo},
	{"SDK64", "a management account that is disabled is told, with a fix", lockedManagement, probesToo},
	{"SDK65", "verify never takes an empty password for right", verifyEmpty, verifies},
	{"SDK66", "verify of an absent account says no", verifyAbsent, verifies},
	{"SDK67", "verify of hostile names says no and changes nothing", verifyHostile, verifies},
	{"SDK68", "verify is a login of its own each time", verifyFresh, verifies},

	{"SDK69", "facts: the expiry comes back, moved and taken away", factsExpiry, inspects},
	{"SDK70", "facts: what a role grants is read back", factsGrants, inspects},
	{"SDK71", "facts: sessions are counted, and disable ends them", factsSessions, inspects},
	{"SDK72", "facts: locked and identity follow disable and enable", factsLocked, inspects},
	{"SDK73", "facts: the time of the password follows a rotation", factsPasswordTime, inspects},
	{"SDK74", "discover finds what was made, with identity and lock", discoverFinds, discovers},
	{"SDK75", "discover forgets what was removed, and stops when told", discoverForgets, discovers},
	{"SDK76", "inspect of hostile names finds nothing and changes nothing", inspectHostile, inspects},

	{"SDK77", "a plan depends on no state of the account", planIsTimeless, provisions},
	{"SDK78", "every role of the catalogue can be planned", everyRolePlans, provisions},
	{"SDK79", "roles and parameters that are wrong are refused", badParams, provisions},
	{"SDK80", "patterns hold for the whole of a text, and people are told what things are", describeWords, nil},
	{"SDK81", "an unknown option is refused by every operation", unknownOption, provisions},
	{"SDK82", "a value an option does not allow is refused by every operation", optionNotAllowed, provisions},
	{"SDK83", "the longest name of the rule works", longestName, provisions},
	{"SDK84", "names with every sign of the rule work", nameCharacters, provisions},
	{"SDK85", "passwords outside the rule are refused and change nothing", outsideRule, provisions},
	{"SDK86", "every printable character works in passwords", printableCharacters, provisions},
	{"SDK87", "comments of every kind do no harm", comments, provisions},
	{"SDK88", "versions of the protocol are negotiated", versions, nil},
	{"SDK89", "an operation the connector lacks answers unsupported", missingPowers, nil},

	{"SDK90", "no goroutine is left", leaksRoutines, provisions},
	{"SDK91", "no file descriptor is left", leaksDescriptors, provisions},
	{"SDK92", "no process is left", leaksProcesses, provisions},
	{"SDK93", "no file is left", leaksFiles, provisions},

	{"SDK94", "run tells the status and both streams", runSpeaks, runs},
	{"SDK95", "run gives output as it comes, and ends when cancelled", runStreams, runs},
	{"SDK96", "run gives large output whole", runLarge, runs},
	{"SDK97", "run over a connection that is cut is an unknown outcome", runCut, runs},
	{"SDK98", "run obeys when the target falls silent at any point", stallAt(running), runs},

	{"SDK99", "verify of an expired account says so, with a fix", verifyIn(StateExpired), verifies},
	{"SDK100", "verify of a locked account says so, with a fix", verifyIn(StateLocked), verifies},
	{"SDK101", "verify of a disabled account says so, with a fix", verifyIn(StateDisabled), verifies},
	{"SDK102", "verify of an account whose password must be changed says so, with a fix", verifyIn(StateMustChange), verifies},
	{"SDK103", "a management account that has expired is told, with a fix", managementIn(StateExpired), probesToo},
	{"SDK104", "a management account that is locked is told, with a fix", managementIn(StateLocked), probesToo},
	{"SDK105", "a management account that somebody disabled is told, with a fix", managementIn(StateDisabled), probesToo},
	{"SDK106", "a management account whose password must be changed is told, with a fix", managementIn(StateMustChange), probesToo},
	{"SDK107", "verify takes the management account for nothing but an explanation", onlyExplains, verifies},
	{"SDK108", "verify of a wrong password costs one failed login, with the management account or without", costsOneLogin, verifies},
	{"SDK109", "no password is in the clear on the wire", onTheWire, provisions},
	{"SDK110", "a grant that fails is undone", failedGrant, provisions},
}
