"""What only the page needs: its visitors, its files, its door."""
