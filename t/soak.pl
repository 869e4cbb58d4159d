#!/usr/bin/perl

# A gateway's life under load, with everything that may happen to one; each
# client's sequence is checked.  See t/lib/RT/Soak.pm.
#
#     make soak
#     make soak SOURCE=embedded MINUTES=10 SEED=4711
#     make soak OFF=redis_restart,burst        or ONLY=reload
#
# NAME=VALUE: the options of RT::Soak, in upper case.  SOURCE is pubsub,
# embedded or stream; without SEED one is drawn.  The nginx is that of
# RT_NGINX and RT_MODULE; or that of `make asan`, which wants less load:
#
#     make asan && make soak RT_ASAN=1 RATE=60 CLIENTS=60

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use RT::Soak;

if (asan() && !$ENV{RT_NGINX}) {
    @ENV{qw(RT_NGINX RT_MODULE)} = (root() . '/build/asan/nginx', '');
    -x $ENV{RT_NGINX} or die "no $ENV{RT_NGINX}: make asan\n";
}

my %opt = (seed => int rand 1_000_000);
for my $arg (@ARGV) {
    my ($name, $value) = $arg =~ /^(\w+)=(.*)\z/s or die "what is $arg?\n";
    $opt{lc $name} = $value if $value ne '';
}
$| = 1;
my $findings = RT::Soak->new(%opt)->run;
is($findings, 0, "soak: seed $opt{seed}, nothing found");
done_testing;
