# A short soak: twice as always, once as never before.  `make soak` takes its
# time; see t/lib/RT/Soak.pm for what is done and what is looked at.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use RT::Soak;

for my $case ([pubsub => 91], [stream => 92],
    [embedded => int rand 1_000_000])
{
    my ($source, $seed) = @$case;
    subtest "source $source, seed $seed" => sub {
        my $soak = RT::Soak->new(source => $source, seed => $seed, quiet => 1,
            minutes => 0.3, pace => 0.4, clients => 60, rate => 120);
        is($soak->run, 0, 'nothing is found') or diag("seed $seed");
        cmp_ok($soak->{faults}{done}, '>=', 5, 'faults were done');
        cmp_ok($soak->{ledger}{published}, '>', 200, 'messages were published');
        cmp_ok($soak->{delivered}, '>', 2 * $soak->{ledger}{published},
            'and delivered');
        cmp_ok($soak->{polls}{200} // 0, '>', 20, 'polls had news');
        cmp_ok($soak->{polls}{304} // 0, '>', 0, 'and none');
        cmp_ok($soak->{ended}, '>', 20, 'clients came back');
    };
}

# the same seed is the same plan, another one is not

sub plan_of ($seed) {
    my $soak = RT::Soak->new(seed => $seed);
    return join '; ', map { "@$_" } RT::Soak::Faults->new($soak,
        RT::Soak::Random->new(2 * $seed))->plan;
}
is(plan_of(3), plan_of(3), 'a seed has its plan');
isnt(plan_of(3), plan_of(4), 'another one has another');

done_testing;
