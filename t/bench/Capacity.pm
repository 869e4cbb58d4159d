package Capacity;

# What one edge node holds, computed from what was measured on one core; the
# formula is shown.  Half of the CPU and 2 GB are left for all else.  The
# figures are of plain HTTP over loopback, where a send does the work of both
# ends, and no network card has any.
#
#     Capacity::text(%median)     # of rows, by their "is"

use v5.36;
use Report;

my ($cores, $gb) = (8, 16);
my ($busy, $spare) = ($cores / 2, 2);

# [WHAT, HOW MANY, FORMULA] of all that was measured
sub of (%is) {
    my @all;
    my $streams;
    if ($is{pss} && defined $is{kernel}) {
        $streams = ($gb - $spare) * 2 ** 20 / ($is{pss} + $is{kernel});
        push @all, ['idle streams', $streams, sprintf
            '%d GB / (%.2f KB + %.2f KB of the kernel)', $gb - $spare,
            $is{pss}, $is{kernel}];
    }
    for (['fan one', 'deliveries/s, one channel'],
         ['fan many', 'deliveries/s, one client a channel'],
         ['poll', 'polls/s answered 304'])
    {
        my ($is, $what) = @$_;
        push @all, [$what, $busy * 1e6 / $is{$is}, sprintf
            '%d cores / %.2f us', $busy, $is{$is}] if $is{$is};
    }
    if ($is{storm}) {
        push @all, ['clients/s that come back', $busy * $is{storm}, sprintf
            '%d cores x %s', $busy, Report::commas($is{storm})];
        push @all, ['... seconds for all streams',
            $streams / ($busy * $is{storm}), sprintf '%s / %s',
            map { Report::commas($_) } $streams, $busy * $is{storm}]
            if $streams;
    }
    push @all, ['messages/s from Redis', 0.5e6 / $is{intake}, sprintf
        'half a core, the feeder / %.2f us', $is{intake}] if $is{intake};
    return @all;
}

# to two digits: it is a computation
sub rounded ($n) {
    my $unit = 10 ** (length(int $n) - 2);
    return Report::commas($unit < 1 ? $n + 0.5 : int($n / $unit + 0.5) * $unit);
}

sub text (%is) {
    my @all = of(%is);
    return '' if !@all;
    return "\nWhat one edge node holds: $cores cores, half of them left idle; "
        . "$gb GB, $spare left free\n"
        . join '', map { sprintf "  %-35s %10s  %s\n", $_->[0],
            rounded($_->[1]), $_->[2] } @all;
}

1;
