# t/fuzz: each target, built with sanitizers, takes every input of its corpus.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

plan(skip_all => 'has sanitizers of its own') if asan();
need('clang');

my $make = 'make -s --no-print-directory -C ' . root() . '/t/fuzz';
my @names = split ' ', `$make list`;
plan(skip_all => 'no fuzz targets') if !@names;

my $out = `$make -j2 all 2>&1`;
is($?, 0, 'built') or diag($out);

for my $name (@names) {
    my @corpus = glob root() . "/t/fuzz/corpus/$name/*";
    ok(scalar @corpus, "$name has a corpus");

    my $log = dir() . "/$name.log";
    my $pid = RT::spawn([root() . "/build/fuzz/$name", '-timeout=10',
        '-runs=0', '-artifact_prefix=' . dir() . "/$name-", @corpus],
        out => $log);
    my $ended = RT::poll_until(sub { !RT::running($pid) }, 120);
    my $status = $?;
    RT::kill_group($pid) if !$ended;
    ok($ended && $status == 0, "$name: " . @corpus . ' inputs')
        or diag(slurp($log));
}

done_testing;
