package Report;

# What the bench tells: rows, as a table, as JSON, as a plot.
#
#     Report::row(part => 'fan', label => TEXT, unit => 'us per delivery',
#         values => { bare => [...], ngx_rt => [...], Nchan => [...] },
#         floor => 'bare', target => 1.05, more => 0);
#
# values: of each round.  The ratio is ngx_rt's to the floor's within the same
# round, its median, least and most.  target: the most it should be (more: the
# least); limit: the most that ngx_rt's own median should be.  late: rounds in
# which a server could not keep up.

use v5.36;
use JSON::PP;
use List::Util qw(max min first);
use POSIX qw(uname);
use Bench;

my (@rows, $machine);

my %title = (
    fan => 'Fan-out', polls => 'Polls', memory => 'Memory',
    latency => 'Latency, publish to last client',
    intake => 'Intake from Redis, no client', connects => 'Connections',
);

sub commas ($n) {
    $n = int $n;
    1 while $n =~ s/^(\d+)(\d{3})/$1,$2/;
    return $n;
}

sub machine ($nginx, %cpu) {
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
    $row{median} = { map { $_ => Bench::median(@{$values->{$_}}) }
        keys %$values };
    $row{ratio} = { map { $_ => Bench::ratio($values->{$_},
        $values->{$row{floor}}) } grep { $_ ne $row{floor} } keys %$values };
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
    return join ', ', (map { sprintf '%s %.2f', $_, $row->{ratio}{$_}[0] }
            grep { $_ ne 'ngx_rt' } sort keys %{$row->{ratio}}),
        map { "$_ late in $late{$_}" } grep { $late{$_} } sort keys %late;
}

# with a minus where it is not reached
sub target ($row) {
    my $text = defined $row->{limit} ? "$row->{limit} KB" : $row->{target};
    return '' if !defined $text;
    return ($row->{more} ? '>= ' : '<= ') . $text
        . ($row->{reached} ? '' : ' -');
}

sub table {
    my ($text, $part) = ('', '');
    my $format = "  %-35s %10s %10s  %-22s %-10s %s\n";
    for my $row (@rows) {
        if ($row->{part} ne $part) {
            $part = $row->{part};
            $text .= "\n" if $text ne '';
            $text .= sprintf $format =~ s/^  //r =~ s/35/37/r,
                $title{$part} // $part, 'floor', 'ngx_rt', 'ratio (spread)',
                'target', 'others';
        }
        my $ratio = $row->{ratio}{ngx_rt};
        $text .= sprintf $format, $row->{label},
            number($row->{median}{$row->{floor}}),
            number($row->{median}{ngx_rt}),
            sprintf('%.2f (%.2f-%.2f)', @$ratio),
            target($row),
            others($row);
    }
    my %unit;
    push @{$unit{$_->{part}}}, $_->{unit} for @rows;
    $text =~ s/ +$//mg;
    my $late = grep { grep { $_ } values %{$_->{late} // {}} } @rows;
    return $text . "\n" . join('', map {
            my $part = $_;
            my %seen;
            my @units = grep { !$seen{$_}++ } @{$unit{$part}};
            my %floor = map { $_->{floor} => 1 }
                grep { $_->{part} eq $part } @rows;
            sprintf "%-9s %s; floor: %s\n", $part, join(', ', @units),
                join ', ', sort keys %floor;
        } grep { $unit{$_} } qw(fan polls memory latency intake connects))
        . ($late ? "late in N rounds: the machine was too busy for that rate,"
            . "\nseveral messages may have gone in one write\n" : '')
        . "Ratios within a round: median (least-most).  $machine\n";
}

sub write ($json, $svg, %run) {
    RT::spew($json, JSON::PP->new->canonical->pretty->encode(
        { %run, machine => $machine, rows => \@rows }));
    RT::spew($svg, svg());
}


# the plot: one bar for each row, from 1, the floor, on a scale of doublings

sub xml ($text) {
    return $text =~ s/&/&amp;/gr =~ s/</&lt;/gr =~ s/>/&gt;/gr;
}

my ($left, $width, $step) = (330, 460, 24);
my ($lowest, $highest) = (-3, 5);      # powers of two

sub x ($ratio) {
    my $log = $ratio > 0 ? log($ratio) / log(2) : $lowest;
    $log = max($lowest, min($highest, $log));
    return sprintf '%.1f', $left + $width * ($log - $lowest)
        / ($highest - $lowest);
}

sub text ($x, $y, $text, $more = '') {
    return sprintf qq{<text x="%s" y="%s"%s>%s</text>\n}, $x, $y,
        $more ne '' ? " $more" : '', xml($text);
}

sub bar ($row, $y) {
    my ($ratio, $least, $most) = @{$row->{ratio}{ngx_rt}};
    my ($from, $to) = sort { $a <=> $b } x(1), x($ratio);
    my $colour = !defined $row->{reached} ? '#7a8aa0'
        : $row->{reached} ? '#2a8f5a' : '#c8662a';
    my $mid = $y + 8;
    my $out = text($left - 12, $y + 12, $row->{label},
        'text-anchor="end" class="label"');
    $out .= sprintf qq{<rect x="%.1f" y="%d" width="%.1f" height="16" }
        . qq{rx="2" fill="%s"/>\n}, $from, $y, max(2, $to - $from), $colour;
    $out .= sprintf qq{<path d="M%s %dH%s" stroke="#20262e" }
        . qq{stroke-width="1.5"/>\n}, x($least), $mid, x($most);
    $out .= sprintf qq{<path d="M%s %dv20" stroke="#20262e" }
        . qq{stroke-width="2" stroke-dasharray="3 2"/>\n}, x($row->{target}),
        $y - 2 if defined $row->{target};
    for my $name (grep { $_ ne 'ngx_rt' } sort keys %{$row->{ratio}}) {
        $out .= sprintf qq{<circle cx="%s" cy="%d" r="4.5" fill="%s" }
            . qq{stroke="#20262e"/>\n}, x($row->{ratio}{$name}[0]), $mid,
            $name eq 'bare' ? '#ffffff' : '#8a63c9';
    }
    return $out . text($left + $width + 14, $y + 12,
        sprintf('%.2f', $ratio), 'class="value"')
        . text($left + $width + 62, $y + 12,
            join(' : ', number($row->{median}{ngx_rt}),
                 number($row->{median}{$row->{floor}})) . " $row->{unit}",
            'class="small"');
}

sub svg {
    my ($y, $part, $out) = (92, '', '');
    for my $row (@rows) {
        if ($row->{part} ne $part) {
            $part = $row->{part};
            $y += 8;
            my %floor = map { $_->{floor} => 1 }
                grep { $_->{part} eq $part } @rows;
            $out .= text(16, $y + 14, $title{$part} // $part, 'class="part"');
            $out .= text(x(1) - 8, $y + 14, '1 = ' . join(', ',
                map { $_ eq 'bare' ? 'the bare loop' : "nginx: $_" }
                sort keys %floor), 'text-anchor="end"');
            $y += 26;
        }
        $out .= bar($row, $y);
        $y += $step;
    }
    my $height = $y + 84;
    my $w = $left + $width + 280;
    my $grid = '';
    for my $power ($lowest .. $highest) {
        my $at = x(2 ** $power);
        $grid .= sprintf qq{<path d="M%s 84V%d" stroke="%s" }
            . qq{stroke-width="%s"/>\n}, $at, $y, $power ? '#dfe4ea'
            : '#20262e', $power ? 1 : 1.5;
        $grid .= text($at, 76, 2 ** $power, 'text-anchor="middle"');
    }
    my $key = $y + 28;
    my $legend = '';
    for ([16, '#2a8f5a', 'ngx_rt, target reached'],
         [200, '#c8662a', 'not reached'], [310, '#7a8aa0', 'no target'])
    {
        my ($x, $colour, $text) = @$_;
        $legend .= sprintf qq{<rect x="%d" y="%d" width="14" height="14" }
            . qq{rx="2" fill="%s"/>\n}, $x, $key - 11, $colour;
        $legend .= text($x + 20, $key, $text);
    }
    for ([410, '#8a63c9', 'Nchan'], [480, '#ffffff', 'the bare loop']) {
        my ($x, $colour, $text) = @$_;
        $legend .= sprintf qq{<circle cx="%d" cy="%d" r="4.5" fill="%s" }
            . qq{stroke="#20262e"/>\n}, $x + 6, $key - 4, $colour;
        $legend .= text($x + 18, $key, $text);
    }
    $legend .= text(600, $key, 'dashed: target; thin line: spread of rounds');
    my $title = text(16, 32, 'ngx_rt: how far from the floor',
        'class="title"') . text(16, 54, 'Ratio to the floor of the same round,'
        . ' median of all rounds; a scale of doublings. Less is better, save'
        . ' for messages/s.');
    my $said = text(16, $key + 28, $machine, 'class="small"');
    return <<"E";
<svg xmlns="http://www.w3.org/2000/svg" width="$w" height="$height"
     viewBox="0 0 $w $height">
<style>
text { font: 13px sans-serif; fill: #57616d }
.title { font-size: 19px; font-weight: bold; fill: #20262e }
.part { font-weight: bold; fill: #20262e }
.label, .value { fill: #20262e }
.value { font-weight: bold }
.small { font-size: 11.5px }
</style>
<rect width="$w" height="$height" fill="#fdfdfc"/>
$title$grid$out$legend$said</svg>
E
}

1;
