package labtest

// AssertCleanWithin is AssertClean for what isn't expected to get clean.
var AssertCleanWithin = assertClean
