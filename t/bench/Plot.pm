package Plot;

# The plot of the bench: one bar for each row that has a floor, from 1, which is
# the floor, on a scale of doublings; a dot for each peer.
#
#     Plot::svg($machine, @rows)      # rows of Report.pm

use v5.36;
use List::Util qw(max min sum0);
use Report;

sub xml ($text) {
    return $text =~ s/&/&amp;/gr =~ s/</&lt;/gr =~ s/>/&gt;/gr;
}

my ($left, $width, $step) = (330, 460, 24);
my ($lowest, $highest) = (-4, 5);      # powers of two

my %dot = ('bare' => '#ffffff', 'Nchan' => '#8a63c9',
    'Nchan by Redis' => '#d58ad0', 'Node' => '#4aa3df',
    'reading alone' => '#c9ced6');

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
            $dot{$name} // '#f2d34c';
    }
    return $out . text($left + $width + 14, $y + 12,
        sprintf('%.2f', $ratio), 'class="value"')
        . text($left + $width + 62, $y + 12,
            join(' : ', map { Report::number($row->{median}{$_}) }
                'ngx_rt', $row->{floor}) . " $row->{unit}",
            'class="small"');
}

# names of the dots in ROWS
sub dots (@rows) {
    my %name = map { $_ => 1 } map { keys %{$_->{ratio}} } @rows;
    delete $name{ngx_rt};
    return sort keys %name;
}

# what the colours are, in a line from X; a text is about so wide
sub legend ($x, $y, @rows) {
    my $out = '';
    for (['#2a8f5a', 'ngx_rt, target reached'], ['#c8662a', 'not reached'],
         ['#7a8aa0', 'no target'])
    {
        my ($colour, $text) = @$_;
        $out .= sprintf qq{<rect x="%d" y="%d" width="14" height="14" }
            . qq{rx="2" fill="%s"/>\n}, $x, $y - 11, $colour;
        $out .= text($x + 20, $y, $text);
        $x += 40 + 7 * length $text;
    }
    for my $name (dots(@rows)) {
        $out .= sprintf qq{<circle cx="%d" cy="%d" r="4.5" fill="%s" }
            . qq{stroke="#20262e"/>\n}, $x + 6, $y - 4,
            $dot{$name} // '#f2d34c';
        my $text = $name eq 'bare' ? 'the bare loop' : $name;
        $out .= text($x + 18, $y, $text);
        $x += 40 + 7 * length $text;
    }
    return $out;
}

# the rows below their parts' titles; where they end
sub bars ($y, @rows) {
    my ($part, $out) = ('', '');
    for my $row (@rows) {
        if ($row->{part} ne $part) {
            $part = $row->{part};
            $y += 8;
            my %floor = map { $_->{floor} => 1 }
                grep { $_->{part} eq $part } @rows;
            $out .= text(16, $y + 14, Report::title($part), 'class="part"');
            $out .= text(x(1) - 8, $y + 14, '1 = ' . join(', ',
                map { $_ eq 'bare' ? 'the bare loop' : "nginx: $_" }
                sort keys %floor), 'text-anchor="end"');
            $y += 26;
        }
        $out .= bar($row, $y);
        $y += $step;
    }
    return ($out, $y);
}

sub svg ($machine, @rows) {
    @rows = grep { $_->{floor} ne '' } @rows;
    my ($out, $y) = bars(92, @rows);
    my $height = $y + 84;
    my $w = $left + $width + 340;
    my $grid = '';
    for my $power ($lowest .. $highest) {
        my $at = x(2 ** $power);
        $grid .= sprintf qq{<path d="M%s 84V%d" stroke="%s" }
            . qq{stroke-width="%s"/>\n}, $at, $y, $power ? '#dfe4ea'
            : '#20262e', $power ? 1 : 1.5;
        $grid .= text($at, 76, $power < 0 ? '1/' . 2 ** -$power : 2 ** $power,
            'text-anchor="middle"');
    }
    my $legend = legend(16, $y + 28, @rows);
    my $title = text(16, 32, 'ngx_rt: how far from the floor',
        'class="title"') . text(16, 54, 'Ratio to the floor of the same round,'
        . ' median of all rounds; dashed: the target; thin line: spread of'
        . ' rounds. Less is better, save for what is per second.');
    my $said = text(16, $y + 56, $machine, 'class="small"');
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
