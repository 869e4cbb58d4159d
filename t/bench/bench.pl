#!/usr/bin/perl

# How far the module is from the limit, as ratios within one run: each thing is
# measured in rounds beside its own floor (a bare loop, nginx itself, a bare
# reader of Redis), on a core of its own where there are two.
#
#     make bench              about ten minutes
#     make bench-quick        less than one
#     make bench ONLY=fan,polls ROUNDS=11
#
# NAME=VALUE: size=full|quick|smoke, only=PART,... (below; each is a file of
# part/), rounds=N, out=DIR (build), also=NAME:FILE,... (other builds of the
# module, beside this one in fan, burst and memory: with io_uring and without,
# before a change and after it), corrupt=N, lose=N (the bare loop of fan gets
# each Nth message wrong, see bare.c: the bench must fail).
#
# Prints a table; OUT/bench.json has all figures of all rounds, OUT/bench.svg
# is a plot.  A sequence, status or body that is not as it must be ends it with
# status 1 and no result.
#
# A part is a package with %sizes, for each size what run() needs (rounds:
# another number than the others have), seconds($size, $rounds), about what it
# takes, and run($size, $rounds, %opt).

use v5.36;
use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use RT;
use Bench;
use Plot;
use Report;
use Servers;

my @parts = map { { name => lc, class => "Part::$_" } } qw(Fan Burst Overload
    Scale Polls Memory Latency Intake Connects Storm);
my %opt = (size => 'full', only => '', also => '', corrupt => 0, lose => 0,
           out => root() . '/build');
for my $arg (@ARGV) {
    my ($name, $value) = $arg =~ /^(\w+)=(.*)\z/s or die "what is $arg?\n";
    $opt{lc $name} = $value if $value ne '';
}

my %rounds = (full => 6, quick => 3, smoke => 1);
$rounds{$opt{size}} // die "size=full, quick or smoke\n";
if ($opt{only} ne '') {
    my %known = map { $_->{name} => 1 } @parts;
    my %only = map { $known{$_} ? ($_ => 1) : die "no part $_\n" }
        split /,/, $opt{only};
    @parts = grep { $only{$_->{name}} } @parts;
}

for my $part (@parts) {
    require 'part/' . ucfirst($part->{name}) . '.pm';
    no strict 'refs';
    $part->{size} = ${"$part->{class}::sizes"}{$opt{size}};
    $part->{rounds} = $opt{rounds} // $part->{size}{rounds}
        // $rounds{$opt{size}};
    $part->{run} = $part->{class}->can('run');
    $part->{seconds} = $part->{class}->can('seconds')->(
        $part->{size}, $part->{rounds});
}


need(qw(redis-server taskset));
$| = 1;
# what ends cleanly is only worth a line when it does not
open my $tap, '>', dir() . '/tap' or die;
Test::More->builder->output($tap);
$Bench::out = root() . '/build/bench';
Bench::pin();
Servers::also($opt{also});

say Report::machine(RT::Nginx::binary(), %Bench::cpu);
say "$_ is not here: skipped" for Servers::missing();
$Bench::redis = RT::Redis->new(
    args => ['client-output-buffer-limit', 'pubsub 0 0 0']);
Bench::parts(map { $_->{seconds} } @parts);
for my $part (@parts) {
    Bench::next_part();
    $part->{run}->($part->{size}, $part->{rounds}, %opt);
}
$Bench::redis->stop;
RT::stop_all();
is(Test::More->builder->is_passing ? 1 : 0, 1, 'all ended cleanly');

Report::write("$opt{out}/bench.json", size => $opt{size},
    seconds => Bench::seconds());
RT::spew("$opt{out}/bench.svg", Plot::svg(Report::machine(), Report::rows()));
say "\n", Report::table();
say sprintf "%d s; %s/bench.json, %s/bench.svg", Bench::seconds(), $opt{out},
    $opt{out};
done_testing;
