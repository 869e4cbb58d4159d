package Report;

# What the bench tells: rows, as a table and as JSON.  What a node holds is
# computed from them, see Capacity.pm; the plot is Plot.pm.
#
#     Report::row(part => 'fan', label => TEXT, unit => 'us per delivery',
#         values => { bare => [...], ngx_rt => [...], Nchan => [...] },
#         floor => 'bare', target => 1.05, more => 0);
#
# values: of each round.  The ratio is ngx_rt's to the floor's within the same
# round, its median, least and most.  target: the most it should be (more: the
# least); limit: the most that ngx_rt's own median should be, in the first word
# of the unit.  late: rounds in which a server could not keep up.  is: what
# Capacity.pm knows the row by.  fails: peers that could not do it.  says: what
# else there is to say.  A floor of '' is none: then there is no ratio.

use v5.36;
use JSON::PP;
use List::Util qw(max min first);
use POSIX qw(uname);
use Bench;
use Capacity;

my (@rows, $machine);

my %title = (
    fan => 'Fan-out', burst => 'A burst of one channel',
    overload => 'More than the bare loop takes',
    scale => 'Scale', polls => 'Polls', memory => 'Memory',
    latency => 'Latency, publish to last client',
    intake => 'Intake from Redis', connects => 'Connections',
    storm => 'All come back at once',
);

sub rows { return @rows }
sub title ($part) { return $title{$part} // $part }

sub commas ($n) {
    $n = int $n;
    1 while $n =~ s/^(\d+)(\d{3})/$1,$2/;
    return $n;
}

# said once, of this NGINX and these cores; then what was said
sub machine ($nginx = undef, %cpu) {
    return $machine if !defined $nginx;
    my ($version) = `$nginx -v 2>&1` =~ m{nginx/(\S+)};
    my @cores = RT::slurp('/proc/cpuinfo') =~ /^(processor)\s*:/mg;
    my ($model) = RT::slurp('/proc/cpuinfo') =~ /^model name\s*:\s*(.+)/m;
    my ($load) = RT::slurp('/proc/loadavg') =~ /^(\S+)/;
    $machine = sprintf '%d cores (%s), Linux %s, nginx %s, %s; load before: %s',
        scalar @cores, $model // (uname())[4], (uname())[2] =~ s/-.*//r,
        $version // '?', $cpu{server} < 0 ? 'not pinned'
        : "server on core $cpu{server}, load on core $cpu{load}", $load;
    return $machine;
}

sub row (%row) {
    $row{floor} //= 'bare';
    my $values = $row{values};
    delete $row{$_} for grep { !defined $row{$_} } qw(is target limit);
    $row{median} = { map { $_ => Bench::median(@{$values->{$_}}) }
        keys %$values };
    my @beside = $row{floor} eq '' ? ()
        : grep { $_ ne $row{floor} } keys %$values;
    $row{ratio} = { map { $_ => Bench::ratio($values->{$_},
        $values->{$row{floor}}) } @beside };
    if (defined $row{target}) {
        my $is = $row{ratio}{ngx_rt}[0];
        $row{reached} = ($row{more} ? $is >= $row{target}
            : $is <= $row{target}) ? JSON::PP::true : JSON::PP::false;
    }
    if (defined $row{limit}) {
        $row{reached} = $row{median}{ngx_rt} <= $row{limit}
            ? JSON::PP::true : JSON::PP::false;
    }
    push @rows, \%row;
}

sub number ($n) {
    return abs $n >= 1000 ? commas($n) : sprintf abs $n >= 100 ? '%.0f'
        : abs $n >= 10 ? '%.1f' : '%.2f', $n;
}

sub others ($row) {
    my %late = %{$row->{late} // {}};
    my $late = join ', ', map { "$_ $late{$_}" } grep { $late{$_} }
        sort keys %late;
    my $fails = join ', ', @{$row->{fails} // []};
    return join '; ', join(', ', map { sprintf '%s %.2f', $_,
            $row->{ratio}{$_}[0] } grep { $_ ne 'ngx_rt' }
            sort keys %{$row->{ratio}}) || (), $late ? "late: $late" : (),
        $fails ne '' ? "fails: $fails" : (), $row->{says} || ();
}

# with a minus where it is not reached
sub target ($row) {
    my $text = defined $row->{limit}
        ? "$row->{limit} " . $row->{unit} =~ s/ .*//r : $row->{target};
    return '' if !defined $text;
    return ($row->{more} ? '>= ' : '<= ') . $text
        . ($row->{reached} ? '' : ' -');
}

# what a row has of the floor
sub beside ($row) {
    return ('', '') if $row->{floor} eq '';
    return (number($row->{median}{$row->{floor}}),
            sprintf '%.2f (%.2f-%.2f)', @{$row->{ratio}{ngx_rt}});
}

sub table {
    my ($text, $part) = ('', '');
    my $format = "  %-35s %10s %10s  %-22s %-10s %s\n";
    for my $row (@rows) {
        if ($row->{part} ne $part) {
            $part = $row->{part};
            $text .= "\n" if $text ne '';
            $text .= sprintf $format =~ s/^  //r =~ s/35/37/r, title($part),
                'floor', 'ngx_rt', 'ratio (spread)', 'target', 'others';
        }
        my ($floor, $ratio) = beside($row);
        $text .= sprintf $format, $row->{label}, $floor,
            number($row->{median}{ngx_rt}), $ratio, target($row), others($row);
    }
    $text =~ s/ +$//mg;
    my $late = grep { grep { $_ } values %{$_->{late} // {}} } @rows;
    return $text . "\n" . units()
        . ($late ? "late, in so many rounds: the machine was too busy for that "
            . "rate, several\nmessages may have gone in one write\n" : '')
        . "Ratios within a round: median (least-most).  $machine\n"
        . Capacity::text(medians());
}

# of each part, in turn
sub units {
    my (%of, @parts);
    for my $row (@rows) {
        my $part = $row->{part};
        push @parts, $part if !$of{$part};
        $of{$part}{unit}{$row->{unit}} //= keys %{$of{$part}{unit}};
        $of{$part}{floor}{$row->{floor}}++ if $row->{floor} ne '';
    }
    return join '', map {
        my ($unit, $floor) = map { $_ // {} } @{$of{$_}}{qw(unit floor)};
        sprintf "%-9s %s; floor: %s\n", $_, join(', ',
            sort { $unit->{$a} <=> $unit->{$b} } keys %$unit),
            join ', ', sort keys %$floor;
    } @parts;
}

# of rows that Capacity.pm knows: ours
sub medians {
    return map { ($_->{is} => $_->{median}{ngx_rt}) } grep { $_->{is} } @rows;
}

sub write ($json, %run) {
    RT::spew($json, JSON::PP->new->canonical->pretty->encode(
        { %run, machine => $machine, rows => \@rows,
          holds => [Capacity::of(medians())] }));
}

1;
